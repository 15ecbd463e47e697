// What a decode step does on a CPU besides reading its weights, without a Python call for each part.
//
// Streams are [batch, hidden]. All functions are called through ctypes by native.py, which mirrors the
// structs; threads are those of OpenMP, which are PyTorch's.

#include "native_products.h"

// ---- y = W x + b ----

template <class T>
static void linear(const void* weight, const void* bias, long rows, long columns, const void* x, void* y,
                   long batch, int threads) {
    typedef typename T::weight W;
    static Inputs<T> inputs;
    inputs.shape(columns);
    for (long b = 0; b < batch; b++)
        for (long i = 0; i < columns; i++) T::put(inputs.of(b), i, T::read(((const W*)x)[b * columns + i]));
    with_width(batch, [&]<int B>(Width<B>) {
#pragma omp parallel num_threads(threads)
        products<T, B, 1>((const W*)weight, rows, columns, inputs.of(0), inputs.stride,
                          [&](long row, float(*out)[B]) {
                              float add = bias ? T::read(((const W*)bias)[row]) : 0;
                              for (long b = 0; b < batch; b++) ((W*)y)[b * rows + row] = T::round(out[0][b] + add);
                          });
    });
}

// ---- stream += mlp(norm(stream)) ----

struct Mlp {
    const void *norm, *gate_up, *down;
    long hidden, inner;
    float eps;
};

template <class T>
static void mlp(const Mlp& m, void* x, long batch, int threads) {
    typedef typename T::weight W;
    static Inputs<T> inputs, gated;
    inputs.shape(m.hidden);
    gated.shape(m.inner);
    W* stream = (W*)x;
    with_width(batch, [&]<int B>(Width<B>) {
#pragma omp parallel num_threads(threads)
        {
            normed<T>(stream, (const W*)m.norm, batch, m.hidden, m.eps, inputs);
            products<T, B, 2>((const W*)m.gate_up, m.inner, m.hidden, inputs.of(0), inputs.stride,
                              [&](long row, float(*out)[B]) {
                                  float y[B];
                                  for (int b = 0; b < B; b++)
                                      y[b] = out[0][b] / (1 + exponential(-out[0][b])) * out[1][b];
                                  for (long b = 0; b < batch; b++) T::put(gated.of(b), row, y[b]);
                              });
#pragma omp barrier
            products<T, B, 1>((const W*)m.down, m.hidden, m.inner, gated.of(0), gated.stride,
                              [&](long row, float(*out)[B]) {
                                  for (long b = 0; b < batch; b++) {
                                      W& at = stream[b * m.hidden + row];
                                      at = T::round(T::read(at) + out[0][b]);
                                  }
                              });
        }
    });
}

// ---- silu(gate) * up for many positions, between products that are not ours ----

template <class T>
static void gate(const void* gate_up, void* out, long count, long inner, int threads) {
    typedef typename T::weight W;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long n = 0; n < count; n++) {
        const W *gates = (const W*)gate_up + n * 2 * inner, *ups = gates + inner;
        W* to = (W*)out + n * inner;
        for (long i = 0; i < inner; i++) {
            const float value = T::read(gates[i]);
            to[i] = T::round(value / (1 + exponential(-value)) * T::read(ups[i]));
        }
    }
}

// ---- stream += attention(norm(stream)), grouped queries, one new position ----

struct Attention {
    const void *norm, *qkv, *bias, *out, *query_norm, *key_norm, *cosines, *sines;  // bias and norms may be null
    void *keys, *values;  // [max_batch, kv_heads, max_tokens, width]
    long hidden, heads, kv_heads, width, max_tokens;
    float eps;
};

// Norm (where the model has one) and rotation of one head, in place; pairs are (d, d + width / 2).
template <class T>
static void turn(const Attention& a, float* head, const void* norm, long position) {
    typedef typename T::weight W;
    const long half = a.width / 2;
    if (norm) rms_norm<T>(head, (const W*)norm, a.width, a.eps, head);
    const W *cosine = (const W*)a.cosines + position * half, *sine = (const W*)a.sines + position * half;
    for (long d = 0; d < half; d++) {
        float c = T::read(cosine[d]), s = T::read(sine[d]), first = head[d], second = head[d + half];
        head[d] = first * c - second * s;
        head[d + half] = second * c + first * s;
    }
}

// One query head over `context` positions; scores has room for them and mixed for one head.
template <class T>
static void attend(const typename T::weight* keys, const typename T::weight* values, long context, long width,
                   const typename T::input* query, float* scores, float* mixed) {
    const float scale = 1 / std::sqrt((float)width);
    const typename T::weight* at[4];
    float out[4][1], most = -INFINITY, sum = 0;
    for (long s = 0; s < context; s += 4) {
        for (long r = 0; r < 4; r++) at[r] = keys + std::min(s + r, context - 1) * width;
        dots<T, 4, 1>(at, width, query, 0, out);
        for (long r = 0; r < std::min(4L, context - s); r++) {
            scores[s + r] = out[r][0] * scale;
            most = std::max(most, scores[s + r]);
        }
    }
    for (long s = 0; s < context; s++) scores[s] = exponential(scores[s] - most);
    for (long s = 0; s < context; s++) sum += scores[s];
    std::fill(mixed, mixed + width, 0.0f);
    for (long s = 0; s < context; s++) {
        const float share = scores[s] / sum;
        const typename T::weight* value = values + s * width;
        for (long d = 0; d < width; d++) mixed[d] += share * T::read(value[d]);
    }
}

template <class T>
static void attention(const Attention& a, void* x, long batch, long position, int threads) {
    typedef typename T::weight W;
    static Inputs<T> inputs, queries, attended;  // queries: of all heads of all sequences
    static std::vector<float> projected, scores;
    const long parts = a.heads + 2 * a.kv_heads, query_rows = a.heads * a.width, per_head = a.max_tokens * a.width;
    inputs.shape(a.hidden);
    attended.shape(query_rows);
    queries.stride = padded(a.width, T::BLOCK);
    queries.values.assign(batch * a.heads * queries.stride, 0);
    projected.resize(batch * parts * a.width);
    scores.resize(threads * (a.max_tokens + a.width));
    W *stream = (W*)x, *keys = (W*)a.keys, *values = (W*)a.values;
    auto prepare = [&](long b, long part) {
        float* head = projected.data() + (b * parts + part) * a.width;
        if (part < a.heads) {
            turn<T>(a, head, a.query_norm, position);
            for (long d = 0; d < a.width; d++) T::put(queries.of(b * a.heads + part), d, head[d]);
            return;
        }
        const bool is_key = part < a.heads + a.kv_heads;
        const long number = part - a.heads - (is_key ? 0 : a.kv_heads);
        if (is_key) turn<T>(a, head, a.key_norm, position);
        W* cached = (is_key ? keys : values) + (b * a.kv_heads + number) * per_head + position * a.width;
        for (long d = 0; d < a.width; d++) cached[d] = T::round(head[d]);
    };
    with_width(batch, [&]<int B>(Width<B>) {
#pragma omp parallel num_threads(threads)
        {
            normed<T>(stream, (const W*)a.norm, batch, a.hidden, a.eps, inputs);
            products<T, B, 1>((const W*)a.qkv, parts * a.width, a.hidden, inputs.of(0), inputs.stride,
                              [&](long row, float(*out)[B]) {
                                  float add = a.bias ? T::read(((const W*)a.bias)[row]) : 0;
                                  for (long b = 0; b < batch; b++)
                                      projected[b * parts * a.width + row] = out[0][b] + add;
                              });
#pragma omp barrier
            const Share parts_of_mine(batch * parts), heads_of_mine(batch * a.heads);
            for (long n = parts_of_mine.from; n < parts_of_mine.to; n++) prepare(n / parts, n % parts);
#pragma omp barrier
            float* mixed = scores.data() + omp_get_thread_num() * (a.max_tokens + a.width);
            for (long n = heads_of_mine.from; n < heads_of_mine.to; n++) {
                const long b = n / a.heads, head = n % a.heads;
                const long at = (b * a.kv_heads + head / (a.heads / a.kv_heads)) * per_head;
                attend<T>(keys + at, values + at, position + 1, a.width, queries.of(n), mixed + a.width, mixed);
                for (long d = 0; d < a.width; d++) T::put(attended.of(b), head * a.width + d, mixed[d]);
            }
#pragma omp barrier
            products<T, B, 1>((const W*)a.out, a.hidden, query_rows, attended.of(0), attended.stride,
                              [&](long row, float(*out)[B]) {
                                  for (long b = 0; b < batch; b++) {
                                      W& to = stream[b * a.hidden + row];
                                      to = T::round(T::read(to) + out[0][b]);
                                  }
                              });
        }
    });
}

// ---- logits = W norm(x), and the first of the largest of them ----

struct Head {
    const void *norm, *weight;
    long hidden, vocabulary;
    float eps;
};

template <class T>
static void head(const Head& h, const void* x, void* logits, int64_t* best, long batch, int threads) {
    typedef typename T::weight W;
    static Inputs<T> inputs;
    inputs.shape(h.hidden);
    float most[MAX_BATCH];
    std::fill(most, most + MAX_BATCH, -INFINITY);
    std::fill(best, best + batch, 0);
    with_width(batch, [&]<int B>(Width<B>) {
#pragma omp parallel num_threads(threads)
        {
            float my_most[B];
            int64_t my_best[B] = {};
            std::fill(my_most, my_most + B, -INFINITY);
            normed<T>((const W*)x, (const W*)h.norm, batch, h.hidden, h.eps, inputs);
            products<T, B, 1>((const W*)h.weight, h.vocabulary, h.hidden, inputs.of(0), inputs.stride,
                              [&](long row, float(*out)[B]) {
                                  for (long b = 0; b < batch; b++) {
                                      const W logit = T::round(out[0][b]);
                                      const float value = T::read(logit);
                                      ((W*)logits)[b * h.vocabulary + row] = logit;
                                      const bool first = value == my_most[b] && row < my_best[b];
                                      if (value > my_most[b] || first) my_most[b] = value, my_best[b] = row;
                                  }
                              });
#pragma omp critical
            for (long b = 0; b < batch; b++)
                if (my_most[b] > most[b] || (my_most[b] == most[b] && my_best[b] < best[b]))
                    most[b] = my_most[b], best[b] = my_best[b];
        }
    });
}

// ---- random weights, see random_weights.py for the recipe ----

template <class V>
static void fill(V* to, long n, uint32_t key_0, uint32_t key_1, const V* table, int threads) {
    const long CHUNK = 1024;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long first = 0; first < (n + 1) / 2; first += CHUNK) {
        uint32_t hashes[CHUNK];
        for (long i = 0; i < CHUNK; i++) {
            uint32_t x = (uint32_t)(first + i) + key_0;
            x ^= x >> 16;
            x *= 0x7FEB352D;
            x += key_1;
            x ^= x >> 15;
            x *= 0x846CA68B;
            hashes[i] = x ^ (x >> 16);
        }
        const long pairs = std::min(CHUNK, n / 2 - first);
        for (long i = 0; i < pairs; i++) {
            to[2 * (first + i)] = table[hashes[i] & 0xffff];
            to[2 * (first + i) + 1] = table[hashes[i] >> 16];
        }
        if (pairs < CHUNK && n % 2) to[n - 1] = table[hashes[pairs] & 0xffff];
    }
}

#include "native_prompts.h"

#define EXPORT extern "C" __attribute__((visibility("default")))
#define FOR_BOTH(name, T)                                                                                          \
    EXPORT void linear_##name(const void* w, const void* bias, long rows, long columns, const void* x, void* y,    \
                              long batch, int threads) {                                                           \
        linear<T>(w, bias, rows, columns, x, y, batch, threads);                                                   \
    }                                                                                                              \
    EXPORT void gate_##name(const void* gate_up, void* out, long count, long inner, int threads) {                 \
        gate<T>(gate_up, out, count, inner, threads);                                                              \
    }                                                                                                              \
    EXPORT void mlp_##name(const Mlp* m, void* x, long batch, int threads) { mlp<T>(*m, x, batch, threads); }      \
    EXPORT void attention_##name(const Attention* a, void* x, long batch, long position, int threads) {            \
        attention<T>(*a, x, batch, position, threads);                                                             \
    }                                                                                                              \
    EXPORT void head_##name(const Head* h, const void* x, void* logits, int64_t* best, long batch, int threads) {  \
        head<T>(*h, x, logits, best, batch, threads);                                                              \
    }
FOR_BOTH(bf16, Bf16)
FOR_BOTH(fp32, Fp32)

EXPORT void fill_2(uint16_t* to, long n, uint32_t key_0, uint32_t key_1, const uint16_t* table, int threads) {
    fill(to, n, key_0, key_1, table, threads);
}
EXPORT void fill_4(uint32_t* to, long n, uint32_t key_0, uint32_t key_1, const uint32_t* table, int threads) {
    fill(to, n, key_0, key_1, table, threads);
}
#ifdef HAVE_MANY
EXPORT void many_linear_bf16(const void* w, const void* bias, long rows, long columns, const void* x, void* y,
                             long count, int threads) {
    many_linear((const uint16_t*)w, (const uint16_t*)bias, rows, columns, (const uint16_t*)x, (uint16_t*)y, count,
                threads);
}
EXPORT void many_mlp_bf16(const Mlp* m, void* x, long count, int threads) {
    many_mlp(*m, (uint16_t*)x, count, threads);
}
EXPORT void many_attention_bf16(const Attention* a, void* x, long batch, long tokens, int threads) {
    many_attention(*a, (uint16_t*)x, batch, tokens, threads);
}
EXPORT void many_scores_bf16(const Attention* a, const void* qkv, void* attended, long batch, long tokens, int threads) {
    many_scores(*a, (const uint16_t*)qkv, (uint16_t*)attended, batch, tokens, threads);
}
#endif
EXPORT const char* instructions() {
#if defined(HAVE_DOT_BF16)
    return "AVX-512 with BF16 dot products";
#elif defined(__AVX512F__)
    return "AVX-512";
#elif defined(__AVX2__)
    return "AVX2";
#else
    return "generic vectors of 128 bits";
#endif
}
