/* Writes down what a process does to one file, for LD_PRELOAD: every write with its bytes, every sync, every mark.
 *
 * From the log a test makes the file as a power cut may leave it: a write that was not synced may be there, missing or
 * torn. POWER_FILE is the end of the file's name, POWER_LOG where the log goes. An entry is a head of four 64-bit
 * integers (kind, offset, length, synchronous) and the bytes of a write.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, MARK = 3, TRUNCATE = 4 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int log_fd(void)
{
    static int fd = -1;
    if (fd < 0)
        fd = open(getenv("POWER_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    return fd;
}

static void enter(int64_t kind, int64_t offset, const struct iovec *parts, int count, int64_t synchronous)
{
    int64_t length = 0;
    for (int at = 0; at < count; at++)
        length += (int64_t)parts[at].iov_len;
    int64_t head[4] = {kind, offset, length, synchronous};
    pthread_mutex_lock(&lock);
    if (syscall(SYS_write, log_fd(), head, sizeof head) != sizeof head)
        abort();
    for (int at = 0; at < count; at++)
        if (syscall(SYS_write, log_fd(), parts[at].iov_base, parts[at].iov_len) != (long)parts[at].iov_len)
            abort();
    pthread_mutex_unlock(&lock);
}

static int watched(int fd)
{
    char link[64], name[PATH_MAX];
    const char *end = getenv("POWER_FILE");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    size_t wanted = end ? strlen(end) : 0;
    return wanted && length >= (ssize_t)wanted && !memcmp(name + length - wanted, end, wanted);
}

static int is_synchronous(int fd)
{
    return (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
}

/* The log has a write before it is done and a sync after: a cut may come in between. */
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (watched(fd))
        enter(WRITE, offset, parts, count, is_synchronous(fd));
    return syscall(SYS_pwritev, fd, parts, count, offset, 0);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    return pwritev(fd, parts, count, offset);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    struct iovec part = {(void *)data, length};
    if (watched(fd))
        enter(WRITE, offset, &part, 1, is_synchronous(fd));
    return syscall(SYS_pwrite64, fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    return pwrite(fd, data, length, offset);
}

/* LMDB writes a single page so on some systems. */
ssize_t write(int fd, const void *data, size_t length)
{
    if (watched(fd)) {
        struct iovec part = {(void *)data, length};
        enter(WRITE, lseek(fd, 0, SEEK_CUR), &part, 1, is_synchronous(fd));
    }
    return syscall(SYS_write, fd, data, length);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (watched(fd))
        enter(WRITE, lseek(fd, 0, SEEK_CUR), parts, count, is_synchronous(fd));
    return syscall(SYS_writev, fd, parts, count);
}

int fdatasync(int fd)
{
    int done = (int)syscall(SYS_fdatasync, fd);
    if (!done && watched(fd))
        enter(SYNC, 0, 0, 0, 1);
    return done;
}

int fsync(int fd)
{
    int done = (int)syscall(SYS_fsync, fd);
    if (!done && watched(fd))
        enter(SYNC, 0, 0, 0, 1);
    return done;
}

int ftruncate(int fd, off_t length)
{
    if (watched(fd))
        enter(TRUNCATE, length, 0, 0, 0);
    return (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate64(int fd, off64_t length)
{
    return ftruncate(fd, length);
}

/* Called by the test: what has been promised by now. */
void power_mark(int64_t number)
{
    enter(MARK, number, 0, 0, 0);
}
