"""Build `cnisandbox._native`: the system calls of native.c, and the part of libseccomp that compiles filters."""

from pathlib import Path

from cffi import FFI

_HERE = Path(__file__).parent

_LIBSECCOMP = """
    typedef void *scmp_filter_ctx;
    enum scmp_compare { SCMP_CMP_NE, SCMP_CMP_LT, SCMP_CMP_LE, SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_GT,
                        SCMP_CMP_MASKED_EQ, ... };
    enum scmp_filter_attr { SCMP_FLTATR_ACT_BADARCH, SCMP_FLTATR_CTL_OPTIMIZE, ... };
    struct scmp_arg_cmp { unsigned int arg; enum scmp_compare op; uint64_t datum_a; uint64_t datum_b; };
    #define SCMP_ACT_ALLOW ...
    #define SCMP_ACT_KILL_PROCESS ...
    #define SCMP_ACT_NOTIFY ...
    scmp_filter_ctx seccomp_init(uint32_t def_action);
    void seccomp_release(scmp_filter_ctx ctx);
    int seccomp_attr_set(scmp_filter_ctx ctx, enum scmp_filter_attr attr, uint32_t value);
    int seccomp_syscall_resolve_name(const char *name);
    int seccomp_rule_add_array(scmp_filter_ctx ctx, uint32_t action, int syscall, unsigned int arg_cnt,
                               const struct scmp_arg_cmp *arg_array);
    int seccomp_export_bpf(const scmp_filter_ctx ctx, int fd);
"""

_LIMITS = "".join(f"#define RLIMIT_{name} ...\n" for name in ("AS", "CORE", "CPU", "FSIZE", "NOFILE", "NPROC"))

ffibuilder = FFI()
ffibuilder.cdef((_HERE / "native.h").read_text() + _LIBSECCOMP + _LIMITS)
ffibuilder.set_source(
    "cnisandbox._native",
    '#include <stdint.h>\n#include <stddef.h>\n#include <seccomp.h>\n#include <sys/resource.h>\n#include "native.h"\n',
    sources=["native/native.c", "native/notify.c"],  # relative to the project: setuptools insists
    include_dirs=["native"],
    depends=["native/native.h"],
    libraries=["seccomp"],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-fstack-protector-strong"],
    extra_link_args=["-Wl,-z,relro,-z,now"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
