/* A disk that syncs slowly, fails to sync, and loses unsynced writes when its process is killed.
 *
 * Preloaded into a node (LD_PRELOAD). Like LazyFS, it holds writes to a write-ahead log (a file named *.log) in memory until they
 * are synced. SIGKILL then loses the writes that a power cut would lose; without this library they survive in the kernel's cache.
 * Nothing else changes unless the file named by CHAOS_DISK says so, which is read at each sync:
 *
 *     slow N     a sync takes N milliseconds longer
 *     fail       a sync fails with EIO, and the writes that it should have synced stay in memory
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FILES 4096

static struct held {
    int is_log;
    char *bytes;
    size_t count, room;
} held[FILES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void find(void) {
    real_open = dlsym(RTLD_NEXT, "open64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_write = dlsym(RTLD_NEXT, "write");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
}

static struct held *log_of(int fd) {
    return fd >= 0 && fd < FILES && held[fd].is_log ? &held[fd] : NULL;
}

/* Writes the held bytes. Returns 0, or -1 with errno. */
static int flush(int fd, struct held *file) {
    size_t done = 0;
    while (done < file->count) {
        ssize_t some = real_write(fd, file->bytes + done, file->count - done);
        if (some < 0 && errno != EINTR) {
            memmove(file->bytes, file->bytes + done, file->count - done);
            file->count -= done;
            return -1;
        }
        done += some > 0 ? (size_t)some : 0;
    }
    file->count = 0;
    return 0;
}

/* Obeys the control file. Returns 0, or -1 with errno for a sync that must fail. */
static int obey(void) {
    const char *path = getenv("CHAOS_DISK");
    char word[8] = "";
    long milliseconds = 0;
    FILE *file = path ? fopen(path, "re") : NULL;
    if (!file)
        return 0;
    int words = fscanf(file, "%7s %ld", word, &milliseconds);
    fclose(file);
    if (words == 2 && !strcmp(word, "slow")) {
        struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    if (words >= 1 && !strcmp(word, "fail")) {
        errno = EIO;
        return -1;
    }
    return 0;
}

static int opened(const char *path, int flags, mode_t mode) {
    int fd = real_open(path, flags, mode);
    size_t length = strlen(path);
    if (fd >= 0 && fd < FILES && (flags & O_ACCMODE) != O_RDONLY && length > 4 && !strcmp(path + length - 4, ".log")) {
        pthread_mutex_lock(&lock);
        held[fd].is_log = 1;
        held[fd].count = 0;
        pthread_mutex_unlock(&lock);
    }
    return fd;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return opened(path, flags, mode);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    struct held *file = log_of(fd);
    if (!file)
        return real_write(fd, bytes, count);
    pthread_mutex_lock(&lock);
    if (file->count + count > file->room) {
        size_t room = 2 * (file->count + count);
        char *more = realloc(file->bytes, room);
        if (!more) {
            pthread_mutex_unlock(&lock);
            errno = ENOSPC;
            return -1;
        }
        file->bytes = more;
        file->room = room;
    }
    memcpy(file->bytes + file->count, bytes, count);
    file->count += count;
    pthread_mutex_unlock(&lock);
    return (ssize_t)count;
}

static int synced(int fd, int (*real_sync)(int)) {
    struct held *file = log_of(fd);
    if (obey() < 0)
        return -1;
    if (file) {
        pthread_mutex_lock(&lock);
        int failed = flush(fd, file);
        pthread_mutex_unlock(&lock);
        if (failed)
            return -1;
    }
    return real_sync(fd);
}

int fsync(int fd) { return synced(fd, real_fsync); }

int fdatasync(int fd) { return synced(fd, real_fdatasync); }

/* Writes the held bytes at a close, as the kernel would write them back later: the process lives, so it has lost nothing. */
int close(int fd) {
    struct held *file = log_of(fd);
    if (file) {
        pthread_mutex_lock(&lock);
        flush(fd, file);
        file->is_log = 0;
        pthread_mutex_unlock(&lock);
    }
    return real_close(fd);
}
