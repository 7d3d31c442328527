/* SPDX-License-Identifier: BSD-2-Clause */
/* fake-file.h -- a fake stream that records the calls of the migration file */

#ifndef VMF_TESTS_FAKE_FILE_H
#define VMF_TESTS_FAKE_FILE_H

#include <vmferry/file.h>

/* What get_buffer answers next: a number of bytes, or one of these. */
#define FAKE_END 0
#define FAKE_BLOCKS (-2)
#define FAKE_FAILS (-1)
#define FAKE_TOO_MANY (-3)

typedef struct Fake {
    GString *calls;  /* "put@POSITION+SIZE ram@OFFSET+LENGTH flush:HOW close " in their order */
    GByteArray *out; /* what was put */
    const void *last_piece; /* address of the last piece put */
    unsigned pieces;        /* pieces of the last put */
    uint64_t account;       /* bytes that a saved range accounts */
    const char *fails;      /* the call that fails: "put", "ram", "flush" or "close" */
    bool mute;              /* it sets no error */

    const uint8_t *in; /* bytes to read */
    size_t in_size, in_taken;
    const int *script; /* answers, ending with FAKE_END; NULL: as many bytes as are asked for */
    void *last_into;   /* where the last get had to put its bytes */
    int last_blocking;
    bool closed;
} Fake;

extern const VmfFileOps fake_writer_ops;      /* with a RAM path */
extern const VmfFileOps fake_stream_only_ops; /* without one */
extern const VmfFileOps fake_reader_ops;

void fake_init(Fake *fake);
void fake_clear(Fake *fake);
/* A reader of `size' bytes, which are made different from their neighbours; never NULL. */
VmfFile *fake_reader_new(Fake *fake, uint8_t *bytes, size_t size);
/* Asserts that the file has failed with this code and that the message has `text' in it. */
void assert_failed(VmfFile *file, int code, const char *text);

#endif
