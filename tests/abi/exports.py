#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# exports.py -- what the library exports is what the public headers declare, and what the map lists
import pathlib
import re
import subprocess
import sys

library, top = sys.argv[1], pathlib.Path(sys.argv[2])


def without_comments(text):
    return re.sub(r'/\*.*?\*/', '', text, flags=re.S)


declared = set()
for header in (top / 'include/vmferry').rglob('*.h'):
    text = without_comments(header.read_text())
    declared |= set(re.findall(r'\bVMF_API\b[^;{]*?\b(vmf_\w+)\s*\(', text))
listed = set(re.findall(r'^\s*(vmf_\w+);', (top / 'transport/libvmferry.map').read_text(), flags=re.M))
symbols = subprocess.run(['nm', '-D', '--defined-only', library], check=True, capture_output=True,
                         text=True).stdout
exported = {line.split()[2].split('@')[0] for line in symbols.splitlines() if ' T ' in line}

wrong = 0
for name in sorted(declared - listed):
    print(f'{name} is declared with VMF_API and not in transport/libvmferry.map')
    wrong += 1
for name in sorted(listed - declared):
    print(f'{name} is in transport/libvmferry.map and no public header declares it with VMF_API')
    wrong += 1
for name in sorted(listed ^ exported):
    print(f'{name} is exported or listed, and not both')
    wrong += 1
sys.exit(wrong != 0)
