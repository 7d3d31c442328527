/* SPDX-License-Identifier: BSD-2-Clause */
/* zero.h -- is this memory all zero? */

#ifndef VMF_ZERO_H
#define VMF_ZERO_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Whether `size' bytes are all zero; any alignment and size. Fast both ways: a
 * non-zero page is mostly seen by its first words, a zero one is read at about
 * memory bandwidth. The memory may change meanwhile: the answer then is for
 * some mixture of moments.
 */
bool vmf_is_zero(const void *memory, size_t size);

#endif
