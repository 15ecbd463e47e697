/* A server whose latencies are known, for loads that one in Python cannot serve (truth_server.py has the odd answers).
 *
 *     cc -O2 -o truth_server truth_server.c && ./truth_server [TTFT_MS [GAP_MS [PORT]]]
 *
 * Prints its port, then answers OpenAI's completions and chat completions on loopback. Token k of a stream is due
 * at receipt + TTFT + k * gap, on an absolute schedule; with the model `perN`, N tokens come in one chunk, when the
 * first of them is due. One thread, one epoll set, one heap of streams by their next moment.
 *
 * It stamps what it does itself (CLOCK_MONOTONIC): a request has arrived when epoll_pwait2 returns with its last
 * byte, a chunk is written just before send(). A client can therefore see neither a request leave later nor a chunk
 * arrive earlier than the server says. Control, from another connection:
 *
 *     GET /truth   per request the TTFT and the time per token after the first chunk, and how late chunks left
 *     GET /active  whether streams are being answered
 *     GET /reset   forget all that has ended
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 65536, MOST_PER_CHUNK = 256, EVENTS_AT_ONCE = 1024, READ_BYTES = 65536 };

typedef struct {
    char *bytes;
    size_t length, room;
} Buffer;

/* A connection, and the stream that it carries (active). */
typedef struct {
    int fd, place; /* place: index in the heap */
    int active, chat, streaming, usage, blocked, broken;
    int tokens, sent, per_chunk, prompt_tokens;
    int64_t received_ns, due_ns, first_ns, last_ns;
    Buffer in, out;
} Connection;

/* What has ended, or is on its way. */
typedef struct {
    int64_t received_ns, first_ns, last_ns;
    int after_first; /* tokens after the first chunk */
} Record;

static Connection *connections[MOST_CONNECTIONS], *heap[MOST_CONNECTIONS];
static int heap_size, epoll_fd, active, peak_active;
static int64_t ttft_ns = 50000000, gap_ns = 10000000;
static Record *records;
static size_t record_count, record_room;
static float *late_ms;
static size_t late_count, late_room;
static int64_t first_received_ns, last_written_ns;
static long requests, tokens_written, times_blocked;
static double cpu_at_reset;

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void *grown(void *memory, size_t bytes) {
    void *made = realloc(memory, bytes);
    if (!made) {
        perror("truth_server");
        exit(1);
    }
    return made;
}

/* Buffers ---------------------------------------------------------------------------------------------------- */

static void reserve(Buffer *buffer, size_t more) {
    if (buffer->length + more + 1 > buffer->room) {
        buffer->room = 2 * (buffer->length + more + 1);
        buffer->bytes = grown(buffer->bytes, buffer->room);
    }
}

static void append(Buffer *buffer, const char *bytes, size_t length) {
    reserve(buffer, length);
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
    buffer->bytes[buffer->length] = 0;
}

static void format(Buffer *buffer, const char *pattern, ...) {
    va_list values;
    va_start(values, pattern);
    int length = vsnprintf(NULL, 0, pattern, values);
    va_end(values);
    reserve(buffer, length);
    va_start(values, pattern);
    vsnprintf(buffer->bytes + buffer->length, length + 1, pattern, values);
    va_end(values);
    buffer->length += length;
}

static void drop(Buffer *buffer, size_t length) {
    buffer->length -= length;
    memmove(buffer->bytes, buffer->bytes + length, buffer->length);
}

/* The streams by their next moment: a binary heap ------------------------------------------------------------- */

static void place(int at, Connection *connection) {
    heap[at] = connection;
    connection->place = at;
}

static void rise(int at) {
    Connection *moved = heap[at];
    for (; at > 0 && moved->due_ns < heap[(at - 1) / 2]->due_ns; at = (at - 1) / 2) place(at, heap[(at - 1) / 2]);
    place(at, moved);
}

static void sink(int at) {
    Connection *moved = heap[at];
    for (int child; (child = 2 * at + 1) < heap_size; at = child) {
        if (child + 1 < heap_size && heap[child + 1]->due_ns < heap[child]->due_ns) child++;
        if (heap[child]->due_ns >= moved->due_ns) break;
        place(at, heap[child]);
    }
    place(at, moved);
}

static void take_out(Connection *connection) {
    int at = connection->place;
    Connection *last = heap[--heap_size];
    connection->place = -1;
    if (last != connection) {
        place(at, last);
        rise(at);
        sink(last->place);
    }
}

/* Connections -------------------------------------------------------------------------------------------------- */

static void end_stream(Connection *connection) {
    connection->active = 0;
    active--;
    take_out(connection);
}

static void hang_up(Connection *connection) {
    if (connection->active) end_stream(connection);
    connections[connection->fd] = NULL;
    close(connection->fd); /* leaves the epoll set by itself */
    free(connection->in.bytes);
    free(connection->out.bytes);
    free(connection);
}

static void watch(Connection *connection, int blocked) {
    struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.fd = connection->fd};
    connection->blocked = blocked;
    times_blocked += blocked;
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, connection->fd, &event);
}

/* Sends what waits; a peer that is gone is noticed by the reader. */
static void flush_out(Connection *connection) {
    while (connection->out.length) {
        ssize_t sent = send(connection->fd, connection->out.bytes, connection->out.length, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN && !connection->blocked) watch(connection, 1);
            if (errno != EAGAIN) connection->broken = 1, connection->out.length = 0;
            return;
        }
        drop(&connection->out, sent);
    }
    if (connection->blocked) watch(connection, 0);
}

static void answer(Connection *connection, const char *status, const char *json) {
    format(&connection->out, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", status,
           strlen(json), json);
    flush_out(connection);
}

/* Streams ------------------------------------------------------------------------------------------------------ */

static void event_into(Buffer *out, const char *json) {
    format(out, "%zx\r\ndata: %s\n\n\r\n", strlen(json) + 8, json);
}

static const char *words(int count) {
    static char text[4 * MOST_PER_CHUNK + 1];
    for (int at = 0; at < count; at++) memcpy(text + 4 * at, " the", 4);
    text[4 * count] = 0;
    return text;
}

static void chunk_into(Connection *connection, int count, int last) {
    char json[4 * MOST_PER_CHUNK + 512];
    const char *reason = last ? "\"length\"" : "null";
    if (connection->chat)
        snprintf(json, sizeof json,
                 "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"plain\","
                 "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"logprobs\":null,\"finish_reason\":%s}]}",
                 words(count), reason);
    else
        snprintf(json, sizeof json,
                 "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1760000000,\"model\":\"plain\","
                 "\"choices\":[{\"index\":0,\"text\":\"%s\",\"logprobs\":null,\"finish_reason\":%s}]}",
                 words(count), reason);
    event_into(&connection->out, json);
}

static void usage_json(Connection *connection, char *json, size_t room) {
    snprintf(json, room, "{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}",
             connection->prompt_tokens, connection->tokens, connection->prompt_tokens + connection->tokens);
}

static void ending_into(Connection *connection) {
    char usage[128], json[512];
    if (connection->usage) {
        usage_json(connection, usage, sizeof usage);
        snprintf(json, sizeof json, "{\"id\":\"1\",\"object\":\"%s\",\"created\":1760000000,\"model\":\"plain\",\"choices\":[],\"usage\":%s}",
                 connection->chat ? "chat.completion.chunk" : "text_completion", usage);
        event_into(&connection->out, json);
    }
    event_into(&connection->out, "[DONE]");
    append(&connection->out, "0\r\n\r\n", 5);
}

static void keep_record(Connection *connection) {
    if (record_count == record_room) {
        record_room = record_room ? 2 * record_room : 4096;
        records = grown(records, record_room * sizeof *records);
    }
    int first = connection->per_chunk < connection->tokens ? connection->per_chunk : connection->tokens;
    records[record_count++] =
        (Record){connection->received_ns, connection->first_ns, connection->last_ns, connection->tokens - first};
}

static void keep_lateness(int64_t late_ns) {
    if (late_count == late_room) {
        late_room = late_room ? 2 * late_room : 65536;
        late_ms = grown(late_ms, late_room * sizeof *late_ms);
    }
    late_ms[late_count++] = late_ns / 1e6f;
}

/* Writes the next chunk of a stream, stamps it, and files the stream under its next moment. */
static void write_chunk(Connection *connection) {
    int left = connection->tokens - connection->sent;
    int count = connection->per_chunk < left ? connection->per_chunk : left, last = count == left;
    chunk_into(connection, count, last);
    if (last) ending_into(connection);
    int64_t now = now_ns();
    flush_out(connection);
    keep_lateness(now - connection->due_ns);
    if (!connection->sent) connection->first_ns = now;
    connection->last_ns = last_written_ns = now;
    connection->sent += count;
    tokens_written += count;
    connection->due_ns = connection->received_ns + ttft_ns + (int64_t)connection->sent * gap_ns;
    if (last) {
        keep_record(connection);
        end_stream(connection);
    } else {
        sink(connection->place);
    }
}

/* The whole answer at once, for clients that probe without a stream. */
static void write_whole(Connection *connection) {
    Buffer json = {0};
    char usage[128];
    usage_json(connection, usage, sizeof usage);
    format(&json, "{\"id\":\"1\",\"object\":\"%s\",\"created\":1760000000,\"model\":\"plain\",\"choices\":[{\"index\":0,",
           connection->chat ? "chat.completion" : "text_completion");
    format(&json, connection->chat ? "\"message\":{\"role\":\"assistant\",\"content\":\"" : "\"text\":\"");
    for (int at = 0; at < connection->tokens; at++) append(&json, " the", 4);
    format(&json, "\"%s,\"finish_reason\":\"length\"}],\"usage\":%s}", connection->chat ? "}" : "", usage);
    answer(connection, "200 OK", json.bytes);
    free(json.bytes);
    end_stream(connection);
}

/* Requests ----------------------------------------------------------------------------------------------------- */

/* What follows `"name":` in the body, or NULL. */
static const char *field(const char *body, const char *name) {
    const char *at = strstr(body, name);
    if (!at) return NULL;
    at += strlen(name);
    return at + strspn(at, " \t\r\n:");
}

static int whole_number(const char *body, const char *name, int otherwise) {
    const char *at = field(body, name);
    return at && *at >= '0' && *at <= '9' ? atoi(at) : otherwise;
}

static int is_true(const char *body, const char *name) {
    const char *at = field(body, name);
    return at && !strncmp(at, "true", 4);
}

/* Ids of a list, or words of a text. */
static int prompt_length(const char *body, int chat) {
    const char *at = field(body, chat ? "\"content\"" : "\"prompt\"");
    if (!at) return 1;
    char end = *at == '[' ? ']' : '"', between = *at == '[' ? ',' : ' ';
    int count = 1;
    for (at++; *at && *at != end; at++) count += *at == between && at[1] != ' ';
    return count;
}

static void start_stream(Connection *connection, const char *body, int chat, int64_t received_ns) {
    const char *model = field(body, "\"model\"");
    int per_chunk = model && !strncmp(model, "\"per", 4) ? atoi(model + 4) : 1;
    int tokens = whole_number(body, "\"max_completion_tokens\"", whole_number(body, "\"max_tokens\"", 16));
    connection->chat = chat;
    connection->per_chunk = per_chunk < 1 ? 1 : per_chunk > MOST_PER_CHUNK ? MOST_PER_CHUNK : per_chunk;
    connection->tokens = tokens < 1 ? 1 : tokens;
    connection->sent = 0;
    connection->streaming = is_true(body, "\"stream\"");
    connection->usage = is_true(body, "\"include_usage\"");
    connection->prompt_tokens = prompt_length(body, chat);
    connection->received_ns = received_ns;
    connection->due_ns = received_ns + ttft_ns;
    if (connection->streaming) {
        format(&connection->out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                                 "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n");
        flush_out(connection);
        requests++;
        if (!first_received_ns) first_received_ns = received_ns;
    } else {
        connection->due_ns += (int64_t)(connection->tokens - 1) * gap_ns;
    }
    connection->active = 1;
    if (++active > peak_active) peak_active = active;
    place(heap_size, connection);
    rise(heap_size++);
}

static int by_size(const void *left, const void *right) {
    float one = *(const float *)left, other = *(const float *)right;
    return (one > other) - (one < other);
}

static void tell_truth(Connection *connection) {
    Buffer json = {0};
    format(&json, "{\"requests\":%ld,\"ended\":%zu,\"tokens\":%ld,\"span_s\":%.9f,\"peak_streams\":%d", requests,
           record_count, tokens_written, record_count ? (last_written_ns - first_received_ns) / 1e9 : 0.0, peak_active);
    qsort(late_ms, late_count, sizeof *late_ms, by_size);
    format(&json, ",\"late_p50_ms\":%.4f,\"late_p99_ms\":%.4f,\"late_max_ms\":%.4f",
           late_count ? late_ms[late_count / 2] : 0, late_count ? late_ms[(late_count - 1) * 99 / 100] : 0,
           late_count ? late_ms[late_count - 1] : 0);
    format(&json, ",\"times_blocked\":%ld,\"cpu_s\":%.6f,\"ttft_s\":[", times_blocked, cpu_s() - cpu_at_reset);
    for (size_t at = 0; at < record_count; at++)
        format(&json, "%s%.9f", at ? "," : "", (records[at].first_ns - records[at].received_ns) / 1e9);
    format(&json, "],\"tpot_s\":[");
    for (size_t at = 0, written = 0; at < record_count; at++)
        if (records[at].after_first)
            format(&json, "%s%.9f", written++ ? "," : "",
                   (records[at].last_ns - records[at].first_ns) / 1e9 / records[at].after_first);
    format(&json, "]}");
    answer(connection, "200 OK", json.bytes);
    free(json.bytes);
}

static void forget(void) {
    record_count = late_count = 0;
    requests = tokens_written = times_blocked = 0;
    first_received_ns = last_written_ns = 0;
    peak_active = active;
    cpu_at_reset = cpu_s();
}

static void serve(Connection *connection, const char *head, const char *body, int64_t received_ns) {
    int chat = !strncmp(head, "POST /v1/chat/completions ", 26);
    if (chat || !strncmp(head, "POST /v1/completions ", 21)) {
        start_stream(connection, body, chat, received_ns);
    } else if (!strncmp(head, "GET /truth ", 11)) {
        tell_truth(connection);
    } else if (!strncmp(head, "GET /active ", 12)) {
        answer(connection, "200 OK", active ? "{\"active\":true}" : "{\"active\":false}");
    } else if (!strncmp(head, "GET /reset ", 11)) {
        forget();
        answer(connection, "200 OK", "{}");
    } else if (!strncmp(head, "GET /v1/models ", 15)) {
        answer(connection, "200 OK",
               "{\"object\":\"list\",\"data\":[{\"id\":\"plain\",\"object\":\"model\",\"created\":1760000000,"
               "\"owned_by\":\"aiprof\",\"max_model_len\":131072}]}");
    } else if (!strncmp(head, "GET /health ", 12)) {
        answer(connection, "200 OK", "{}");
    } else {
        answer(connection, "404 Not Found", "{\"error\":{\"message\":\"not found\"}}");
    }
}

/* Serves the requests that are complete; one at a time on a connection. */
static void serve_complete(Connection *connection, int64_t received_ns) {
    Buffer *in = &connection->in;
    while (in->length && !connection->active) {
        in->bytes[in->length] = 0;
        char *end = strstr(in->bytes, "\r\n\r\n"), *length_at = strcasestr(in->bytes, "\r\ncontent-length:");
        if (!end) return;
        size_t head = end + 4 - in->bytes, body = length_at && length_at < end ? strtoul(length_at + 17, NULL, 10) : 0;
        if (in->length < head + body) {
            if (in->length == head && strcasestr(in->bytes, "\r\nexpect: 100-continue"))
                append(&connection->out, "HTTP/1.1 100 Continue\r\n\r\n", 25), flush_out(connection);
            return;
        }
        char kept = in->bytes[head + body];
        in->bytes[head + body] = 0;
        serve(connection, in->bytes, in->bytes + head, received_ns);
        in->bytes[head + body] = kept;
        drop(in, head + body);
    }
}

static void read_from(Connection *connection, int64_t received_ns) {
    for (;;) {
        reserve(&connection->in, READ_BYTES);
        ssize_t got = recv(connection->fd, connection->in.bytes + connection->in.length, READ_BYTES, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
            hang_up(connection);
            return;
        }
        if (got < 0) break;
        connection->in.length += got;
        if (got < READ_BYTES) break;
    }
    serve_complete(connection, received_ns);
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        if (fd >= MOST_CONNECTIONS) {
            close(fd);
            continue;
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        connections[fd] = grown(NULL, sizeof(Connection));
        *connections[fd] = (Connection){.fd = fd, .place = -1};
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_on(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&address, &length)) {
        perror("truth_server");
        exit(1);
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

/* Waits for bytes, at most until the next chunk is due. */
static int wait_for(struct epoll_event *events) {
    struct timespec wait, *until = NULL;
    if (heap_size) {
        int64_t left = heap[0]->due_ns - now_ns();
        if (left < 0) left = 0;
        wait = (struct timespec){left / 1000000000, left % 1000000000};
        until = &wait;
    }
    return epoll_pwait2(epoll_fd, events, EVENTS_AT_ONCE, until, NULL);
}

static void write_due(void) {
    for (int64_t now = now_ns(); heap_size && heap[0]->due_ns <= now;) {
        Connection *next = heap[0];
        next->streaming ? write_chunk(next) : write_whole(next);
        if (next->broken)
            hang_up(next);
        else if (!next->active && next->in.length)
            serve_complete(next, now_ns()); /* a request that came before the answer was over */
    }
}

int main(int count, char **given) {
    if (count > 1) ttft_ns = (int64_t)(atof(given[1]) * 1e6);
    if (count > 2) gap_ns = (int64_t)(atof(given[2]) * 1e6);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on(count > 3 ? atoi(given[3]) : 0);
    struct epoll_event events[EVENTS_AT_ONCE], wanted = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &wanted);
    for (;;) {
        int ready = wait_for(events);
        int64_t received_ns = now_ns();
        for (int at = 0; at < ready; at++) {
            int fd = events[at].data.fd;
            if (fd == listener) {
                accept_all(listener);
                continue;
            }
            if (connections[fd] && events[at].events & EPOLLOUT) flush_out(connections[fd]);
            if (connections[fd] && events[at].events & ~EPOLLOUT) read_from(connections[fd], received_ns);
        }
        write_due();
    }
}
