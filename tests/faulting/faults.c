/* A preloaded library that lets one system call of a process fail, as an ill storage would.

   VASE_FAIL_CALL      open read write fsync rename link mkdir flock stat symlink syncfs
   VASE_FAIL_ERRNO     the number of the error
   VASE_FAIL_NTH       the first call that fails (1, 2, ...), counted in each process
   VASE_FAIL_UNDER     only calls on paths below this folder count
   VASE_FAIL_PROGRAM   only processes whose command line holds this text count
   VASE_FAIL_MARK      this file is created by the first failure
   VASE_FAIL_LASTING   "1": every later call fails too; otherwise one call of all processes fails */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *call, *under, *mark;
static int number, nth, lasting, counts;
static atomic_int seen;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

/* Read the settings. A process that forks for each drill calls this in its child, too. */
__attribute__((constructor)) void vase_begin(void) {
    static char words[65536];
    atomic_store(&seen, 0);
    call = setting("VASE_FAIL_CALL");
    under = setting("VASE_FAIL_UNDER");
    mark = setting("VASE_FAIL_MARK");
    number = atoi(setting("VASE_FAIL_ERRNO"));
    nth = atoi(setting("VASE_FAIL_NTH"));
    lasting = setting("VASE_FAIL_LASTING")[0] == '1';
    const char *program = setting("VASE_FAIL_PROGRAM");
    int file = syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY);
    ssize_t size = file < 0 ? 0 : syscall(SYS_read, file, words, sizeof words - 1);
    if (file >= 0) syscall(SYS_close, file);
    for (ssize_t i = 0; i < size; i++)
        if (!words[i]) words[i] = ' ';
    counts = call[0] && under[0] && nth > 0 && strstr(words, program) != NULL;
}

/* Return 1 if the call must fail. `path` may be relative to `folder`; without a path, `folder` is the open file. */
static int fails(const char *name, int folder, const char *path) {
    char whole[2 * PATH_MAX + 2], link[64];
    if (!counts || strcmp(name, call)) return 0;
    size_t used = 0;
    if (!path || path[0] != '/') {
        if (path && folder == AT_FDCWD) {
            if (syscall(SYS_getcwd, whole, PATH_MAX) < 0) return 0;
            used = strlen(whole);
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, link, whole, (size_t)PATH_MAX);
            if (size < 0) return 0;
            used = (size_t)size;
        }
        whole[used] = 0;
    }
    if (path && path[0]) snprintf(whole + used, sizeof whole - used, used ? "/%s" : "%s", path);
    size_t length = strlen(under);
    if (strncmp(whole, under, length) || (whole[length] && whole[length] != '/')) return 0;
    int count = atomic_fetch_add(&seen, 1) + 1;
    if (count < nth || (count > nth && !lasting)) return 0;
    int made = syscall(SYS_openat, AT_FDCWD, mark, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (made >= 0) {
        dprintf(made, "%s %s\n", name, whole);
        syscall(SYS_close, made);
    } else if (!lasting) {
        return 0; /* another process has failed already */
    }
    errno = number;
    return 1;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
#define WRAP(kind, name, result, given, passed, folder, path) \
    result name given { REAL(name); if (fails(kind, folder, path)) return -1; return real passed; }

int open(const char *path, int flags, ...) { MODE(flags) REAL(open); if (fails("open", AT_FDCWD, path)) return -1; return real(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) REAL(open64); if (fails("open", AT_FDCWD, path)) return -1; return real(path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) REAL(openat); if (fails("open", folder, path)) return -1; return real(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) REAL(openat64); if (fails("open", folder, path)) return -1; return real(folder, path, flags, mode); }
FILE *fopen(const char *path, const char *mode) { REAL(fopen); if (fails("open", AT_FDCWD, path)) return NULL; return real(path, mode); }
FILE *fopen64(const char *path, const char *mode) { REAL(fopen64); if (fails("open", AT_FDCWD, path)) return NULL; return real(path, mode); }
WRAP("read", read, ssize_t, (int file, void *to, size_t size), (file, to, size), file, NULL)
WRAP("read", pread, ssize_t, (int file, void *to, size_t size, off_t at), (file, to, size, at), file, NULL)
WRAP("read", pread64, ssize_t, (int file, void *to, size_t size, off64_t at), (file, to, size, at), file, NULL)
WRAP("read", readv, ssize_t, (int file, const struct iovec *parts, int many), (file, parts, many), file, NULL)
WRAP("write", write, ssize_t, (int file, const void *from, size_t size), (file, from, size), file, NULL)
WRAP("write", pwrite, ssize_t, (int file, const void *from, size_t size, off_t at), (file, from, size, at), file, NULL)
WRAP("write", pwrite64, ssize_t, (int file, const void *from, size_t size, off64_t at), (file, from, size, at), file, NULL)
WRAP("write", writev, ssize_t, (int file, const struct iovec *parts, int many), (file, parts, many), file, NULL)
WRAP("fsync", fsync, int, (int file), (file), file, NULL)
WRAP("fsync", fdatasync, int, (int file), (file), file, NULL)
WRAP("syncfs", syncfs, int, (int file), (file), file, NULL)
WRAP("flock", flock, int, (int file, int how), (file, how), file, NULL)
WRAP("rename", rename, int, (const char *from, const char *to), (from, to), AT_FDCWD, to)
WRAP("rename", renameat, int, (int folder, const char *from, int other, const char *to), (folder, from, other, to), other, to)
WRAP("link", link, int, (const char *from, const char *to), (from, to), AT_FDCWD, to)
WRAP("link", linkat, int, (int folder, const char *from, int other, const char *to, int how), (folder, from, other, to, how), other, to)
WRAP("symlink", symlink, int, (const char *from, const char *to), (from, to), AT_FDCWD, to)
WRAP("symlink", symlinkat, int, (const char *from, int folder, const char *to), (from, folder, to), folder, to)
WRAP("mkdir", mkdir, int, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path)
WRAP("mkdir", mkdirat, int, (int folder, const char *path, mode_t mode), (folder, path, mode), folder, path)
WRAP("stat", stat, int, (const char *path, struct stat *to), (path, to), AT_FDCWD, path)
WRAP("stat", stat64, int, (const char *path, struct stat64 *to), (path, to), AT_FDCWD, path)
WRAP("stat", lstat, int, (const char *path, struct stat *to), (path, to), AT_FDCWD, path)
WRAP("stat", lstat64, int, (const char *path, struct stat64 *to), (path, to), AT_FDCWD, path)
WRAP("stat", fstatat, int, (int folder, const char *path, struct stat *to, int how), (folder, path, to, how), folder, path)
WRAP("stat", fstatat64, int, (int folder, const char *path, struct stat64 *to, int how), (folder, path, to, how), folder, path)
WRAP("stat", statx, int, (int folder, const char *path, int how, unsigned mask, struct statx *to), (folder, path, how, mask, to), folder, path)
