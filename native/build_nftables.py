"""Builds cnisandbox._nftables: the calls of libnftables that cnisandbox.nft.connection makes, and nothing else.

There is no C here but the declarations: what is sent and what an answer means is decided in Python.

Source: nftables/libnftables.h and libnftables(3), nftables 1.0.6.
"""

from cffi import FFI

ffibuilder = FFI()

ffibuilder.cdef("""
    #define NFT_CTX_DEFAULT ...
    #define NFT_CTX_OUTPUT_JSON ...
    #define NFT_CTX_OUTPUT_NUMERIC_ALL ...

    struct nft_ctx;

    struct nft_ctx *nft_ctx_new(uint32_t flags);
    void nft_ctx_free(struct nft_ctx *ctx);

    void nft_ctx_output_set_flags(struct nft_ctx *ctx, unsigned int flags);
    int nft_ctx_buffer_output(struct nft_ctx *ctx);
    const char *nft_ctx_get_output_buffer(struct nft_ctx *ctx);
    int nft_ctx_buffer_error(struct nft_ctx *ctx);
    const char *nft_ctx_get_error_buffer(struct nft_ctx *ctx);

    int nft_run_cmd_from_buffer(struct nft_ctx *nft, const char *buf);
""")

ffibuilder.set_source("cnisandbox._nftables", "#include <nftables/libnftables.h>", libraries=["nftables"])

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
