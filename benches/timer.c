// Times commands from start to exit, interleaved, so that a quiet or busy minute of the machine hits all of them alike.
//
//   timer ROUNDS NAME SUBJECT FLOOR [NAME SUBJECT FLOOR]...
//
// SUBJECT and FLOOR are command lines, split at blanks, run without a shell; `-` for SUBJECT times the floor alone. Each round
// runs each command once (the order turns from round to round), posix_spawn to wait4. What a command leaves running (a cleaner,
// a monitor) becomes our child, and is waited for before the next command begins: it costs nobody else's time.
// Prints minimum, median and 90th percentile in ms, and the ratio of the medians. Exits with 1 if a command fails.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { MOST_COMMANDS = 16, MOST_WORDS = 32, LONGEST_WAIT_MS = 5000 };

struct command {
    const char *name;
    char *words[MOST_WORDS];
    double *times, cpu; // ms
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int by_size(const void *a, const void *b) {
    double x = *(double *)a, y = *(double *)b;
    return (x > y) - (x < y);
}

static void collect_orphans(const char *name) {
    for (double end = now() + LONGEST_WAIT_MS;;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid < 0)
            return; // no child is left
        if (!pid) {
            if (now() > end) {
                fprintf(stderr, "timer: something that `%s` left behind still runs after 5 s\n", name);
                exit(1);
            }
            usleep(200);
        }
    }
}

static double run(struct command *c, posix_spawn_file_actions_t *actions) {
    pid_t pid;
    int status;
    struct rusage usage;
    double begin = now();
    int error = posix_spawn(&pid, c->words[0], actions, NULL, c->words, environ);
    if (error) {
        fprintf(stderr, "timer: cannot start %s: %s\n", c->words[0], strerror(error));
        exit(1);
    }
    while (wait4(pid, &status, 0, &usage) < 0)
        if (errno != EINTR)
            exit(1);
    double end = now();
    if (status) {
        fprintf(stderr, "timer: %s:", c->name);
        for (int i = 0; c->words[i]; i++)
            fprintf(stderr, " %s", c->words[i]);
        fprintf(stderr, WIFEXITED(status) ? ": exit code %d\n" : ": wait status %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : status);
        exit(1);
    }
    collect_orphans(c->name);
    return end - begin;
}

static int split(struct command *c, const char *name, char *line) {
    c->name = name;
    int n = 0;
    for (char *word = strtok(line, " "); word && n < MOST_WORDS - 1; word = strtok(NULL, " "))
        c->words[n++] = word;
    return n && strcmp(c->words[0], "-");
}

static void row(const struct command *c, int rounds, const char *label) {
    qsort(c->times, rounds, sizeof *c->times, by_size);
    printf("%-16s %-9s %8.2f %8.2f %8.2f", c->name, label, c->times[0], c->times[rounds / 2], c->times[rounds * 9 / 10]);
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 0, variants = (argc - 2) / 3;
    if (rounds < 1 || argc < 5 || (argc - 2) % 3 || variants * 2 > MOST_COMMANDS) {
        fprintf(stderr, "usage: timer ROUNDS NAME SUBJECT FLOOR [NAME SUBJECT FLOOR]...\n");
        return 2;
    }
    struct command commands[MOST_COMMANDS] = {0};
    int wanted[MOST_COMMANDS];
    for (int i = 0; i < variants * 2; i++) {
        wanted[i] = split(&commands[i], argv[2 + i / 2 * 3], argv[3 + i / 2 * 3 + i % 2]);
        commands[i].times = calloc(rounds, sizeof(double));
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    for (int round = -3; round < rounds; round++) // three to get warm
        for (int i = 0; i < variants * 2; i++) {
            int which = (i + round + 6) % (variants * 2);
            if (!wanted[which])
                continue;
            double ms = run(&commands[which], &actions);
            if (round >= 0)
                commands[which].times[round] = ms;
        }
    printf("%-16s %-9s %8s %8s %8s   ratio of medians (n = %d)\n", "ms", "", "min", "median", "p90", rounds);
    for (int v = 0; v < variants; v++) {
        struct command *subject = &commands[2 * v], *floor = &commands[2 * v + 1];
        row(floor, rounds, "floor");
        printf("\n");
        if (wanted[2 * v]) {
            row(subject, rounds, "minidock");
            printf("   %.2f\n", subject->times[rounds / 2] / floor->times[rounds / 2]);
        }
    }
    return 0;
}
