// Products and whole parts of a layer for many positions at once (prompts, large batches), for native.cpp.
//
// With 32 positions side by side in vector lanes, every word of a weight (two neighbours in bf16) is
// broadcast to them: no sum over lanes, and the weights stay as few rows at a time want them. Only with
// AVX-512 BF16; elsewhere PyTorch's products take what has many rows.

#pragma once

#include <new>

#include "native_products.h"

#if defined(HAVE_DOT_BF16) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define HAVE_MANY 1

static const long PANEL = 32;  // positions side by side
static const long TILE = 12;   // rows of a matrix taken at once: 12 x 2 sums fill the 32 registers
static const long L2_BYTES = 512 << 10;  // of panels that are gone over again for each tile

static uint32_t pair(float low, float high) {
    return Bf16::round(low) | (uint32_t)Bf16::round(high) << 16;
}

// Memory whose vectors never straddle two cache lines.
template <class V>
struct Lines {
    typedef V value_type;
    Lines() = default;
    template <class Other>
    Lines(const Lines<Other>&) {}
    V* allocate(size_t n) { return (V*)::operator new(n * sizeof(V), std::align_val_t(64)); }
    void deallocate(V* at, size_t) { ::operator delete(at, std::align_val_t(64)); }
    bool operator==(const Lines&) const { return true; }
};
template <class V>
using Aligned = std::vector<V, Lines<V>>;

// Vectors of one width as panels: [panel][width / 2] lines of 32 words, a word two neighbours of one vector.
struct Panels {
    Aligned<uint32_t> words;
    long width = 0, count = 0, panels = 0;
    void shape(long vectors, long vector_width) {  // before the threads start; lanes without a vector are 0
        width = vector_width, count = vectors, panels = (vectors + PANEL - 1) / PANEL;
        words.assign(panels * (width / 2) * PANEL, 0);
    }
    uint32_t* of(long panel) { return words.data() + panel * (width / 2) * PANEL; }
    long filled(long panel) const { return std::min(PANEL, count - panel * PANEL); }
    void put(long n, const float* values) {
        uint32_t* to = of(n / PANEL) + n % PANEL;
        for (long i = 0; i < width / 2; i++) to[i * PANEL] = pair(values[2 * i], values[2 * i + 1]);
    }
};

// out[12][32] = twelve rows times one panel. Rows lie in four groups of three neighbours, `row` bytes apart;
// their next word is `step` bytes on. While the first panel is multiplied, `next` is fetched.
template <int G>
static inline void tile(const char* const* groups, long row, long step, const uint32_t* x, long pairs,
                        const char* next, float (*out)[PANEL]) {
    __m512 sums[TILE][G];
    for (int r = 0; r < TILE; r++)
        for (int g = 0; g < G; g++) sums[r][g] = _mm512_setzero_ps();
    const char *first = groups[0], *second = groups[1], *third = groups[2], *fourth = groups[3];
    for (long k = 0; k < pairs; k++, x += PANEL) {
        __m512bh in[G];
        for (int g = 0; g < G; g++) in[g] = (__m512bh)_mm512_loadu_si512(x + 16 * g);
        if (next) __builtin_prefetch(next + k * TILE * 4, 0, 2);
#pragma GCC unroll 12
        for (int r = 0; r < TILE; r++) {
            const char* at = (r < 3 ? first : r < 6 ? second : r < 9 ? third : fourth) + r % 3 * row;
            const __m512bh word = (__m512bh)_mm512_set1_epi32(*(const int32_t*)at);
            for (int g = 0; g < G; g++) sums[r][g] = _mm512_dpbf16_ps(sums[r][g], word, in[g]);
        }
        first += step, second += step, third += step, fourth += step;
    }
    for (int r = 0; r < TILE; r++)
        for (int g = 0; g < G; g++) _mm512_storeu_ps(out[r] + 16 * g, sums[r][g]);
}

static inline void tile_of(long filled, const char* const* groups, long row, long step, const uint32_t* x,
                           long pairs, const char* next, float (*out)[PANEL]) {
    if (filled > 16) tile<2>(groups, row, step, x, pairs, next, out);
    else tile<1>(groups, row, step, x, pairs, next, out);
}

// Call done(row, skip, panel, out) for this thread's share of the rows of P matrices that lie one after the
// other: out has 12 / P rows of each from `row` on, of which the first `skip` were done before (the last tile
// is moved back to be whole). Each matrix has 12 / P rows at least.
template <int P, class Done>
static void many_products(const uint16_t* matrix, long rows, long columns, Panels& x, Done done) {
    const long each = TILE / P, tiles = (rows + each - 1) / each, bytes = columns * 2;
    const long at_once = std::max(1L, L2_BYTES / (x.width * 2 * PANEL));
    const Share mine(tiles);
    alignas(64) float out[TILE][PANEL];
    for (long begin = 0; begin < x.panels; begin += at_once)
        for (long t = mine.from; t < mine.to; t++) {
            const long row = std::min(t * each, rows - each);
            const char* groups[4];
            for (long g = 0; g < 4; g++) {
                const long of_matrix = g * 3 / each, within = g * 3 % each;
                groups[g] = (const char*)(matrix + (of_matrix * rows + row + within) * columns);
            }
            const long end = std::min(x.panels, begin + at_once);
            for (long panel = begin; panel < end; panel++) {
                const char* next = panel == begin && t + 1 < mine.to ? groups[0] + each * bytes : nullptr;
                tile_of(x.filled(panel), groups, bytes, 4, x.of(panel), columns / 2, next, out);
                done(row, t * each - row, panel, out);
            }
        }
}

static inline __m512 read_masked(const uint16_t* at, __mmask16 which) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(which, at)), 16);
}

static inline void write_masked(uint16_t* at, __mmask16 which, __m512 values) {
    _mm256_mask_storeu_epi16(at, which, (__m256i)_mm512_cvtneps_pbh(values));
}

// Call put(n, sums, which) for each position n of a panel: the tile's rows lie side by side in `sums`, and
// `which` masks those that were not done before.
template <class Put>
static inline void by_position(const Panels& x, long panel, long skip, float (*out)[PANEL], Put put) {
    alignas(64) float turned[PANEL][16];
    for (long r = 0; r < TILE; r += 4)
        for (long lane = 0; lane < PANEL; lane += 4) {
            __m128 rows[4];
            for (int i = 0; i < 4; i++) rows[i] = _mm_load_ps(out[r + i] + lane);
            _MM_TRANSPOSE4_PS(rows[0], rows[1], rows[2], rows[3]);
            for (int i = 0; i < 4; i++) _mm_store_ps(turned[lane + i] + r, rows[i]);
        }
    const __mmask16 which = (1 << TILE) - (1 << skip);
    for (long lane = 0; lane < x.filled(panel); lane++)
        put(panel * PANEL + lane, _mm512_load_ps(turned[lane]), which);
}

static void add_to_stream(uint16_t* stream, long hidden, const uint16_t* weight, long columns, Panels& x) {
    many_products<1>(weight, hidden, columns, x, [&](long row, long skip, long panel, float(*out)[PANEL]) {
        by_position(x, panel, skip, out, [&](long n, __m512 sums, __mmask16 which) {
            uint16_t* at = stream + n * hidden + row;
            write_masked(at, which, _mm512_add_ps(read_masked(at, which), sums));
        });
    });
}

static void normed_panels(const uint16_t* stream, const uint16_t* weight, float eps, Panels& x) {
    std::vector<float> values(x.width);
    const Share mine(x.panels);  // whole panels, so that no two threads write into one line
    for (long n = mine.from * PANEL; n < std::min(x.count, mine.to * PANEL); n++) {
        for (long i = 0; i < x.width; i++) values[i] = Bf16::read(stream[n * x.width + i]);
        rms_norm<Bf16>(values.data(), weight, x.width, eps, values.data());
        x.put(n, values.data());
    }
#pragma omp barrier
}

// ---- y = W x + b ----

static void many_linear(const uint16_t* weight, const uint16_t* bias, long rows, long columns, const uint16_t* x,
                        uint16_t* y, long count, int threads) {
    static Panels inputs;
    inputs.shape(count, columns);
#pragma omp parallel num_threads(threads)
    {
        const Share mine(inputs.panels);
        for (long n = mine.from * PANEL; n < std::min(count, mine.to * PANEL); n++) {
            uint32_t* to = inputs.of(n / PANEL) + n % PANEL;
            for (long i = 0; i < columns / 2; i++) memcpy(to + i * PANEL, x + n * columns + 2 * i, 4);
        }
#pragma omp barrier
        many_products<1>(weight, rows, columns, inputs, [&](long row, long skip, long panel, float(*out)[PANEL]) {
            by_position(inputs, panel, skip, out, [&](long n, __m512 sums, __mmask16 which) {
                if (bias) sums = _mm512_add_ps(sums, read_masked(bias + row, which));
                write_masked(y + n * rows + row, which, sums);
            });
        });
    }
}

// ---- stream += mlp(norm(stream)) ----

static void many_mlp(const Mlp& m, uint16_t* stream, long count, int threads) {
    static Panels inputs, gated;
    inputs.shape(count, m.hidden);
    gated.shape(count, m.inner);
#pragma omp parallel num_threads(threads)
    {
        normed_panels(stream, (const uint16_t*)m.norm, m.eps, inputs);
        many_products<2>((const uint16_t*)m.gate_up, m.inner, m.hidden, inputs,
                         [&](long row, long, long panel, float(*out)[PANEL]) {
                             uint32_t* to = gated.of(panel) + row / 2 * PANEL;
                             for (long r = 0; r < TILE / 2; r++)
                                 for (long lane = 0; lane < PANEL; lane++)
                                     out[r][lane] = out[r][lane] / (1 + exponential(-out[r][lane])) * out[r + 6][lane];
                             for (long r = 0; r < TILE / 2; r += 2)
                                 for (long lane = 0; lane < PANEL; lane++)
                                     to[r / 2 * PANEL + lane] = pair(out[r][lane], out[r + 1][lane]);
                         });
#pragma omp barrier
        add_to_stream(stream, m.hidden, (const uint16_t*)m.down, m.inner, gated);
    }
}

// ---- stream += attention(norm(stream)), grouped queries, whole prompts from position 0 on ----

// Softmax over the keys, for each lane's query: scores[key][lane] become words of two neighbouring keys'
// shares, not yet divided by their sums. A query at `position` + lane sees keys up to itself.
static void causal_shares(float (*scores)[PANEL], long keys, long position, float scale, uint32_t* words,
                          float* sums) {
    float most[PANEL];
    std::fill(most, most + PANEL, -INFINITY);
    std::fill(sums, sums + PANEL, 0.0f);
    for (long s = 0; s < keys; s++) {
        for (long lane = 0; lane < s - position; lane++) scores[s][lane] = -INFINITY;
        for (long lane = 0; lane < PANEL; lane++) most[lane] = std::max(most[lane], scores[s][lane]);
    }
    if (keys % 2) std::fill(scores[keys], scores[keys] + PANEL, -INFINITY);
    for (long s = 0; s < keys; s += 2)
        for (long lane = 0; lane < PANEL; lane++) {
            const float first = exponential((scores[s][lane] - most[lane]) * scale);
            const float second = exponential((scores[s + 1][lane] - most[lane]) * scale);
            // exponential stops at e^-87, which is nothing beside the 1 of the largest score
            sums[lane] += first + second;
            words[s / 2 * PANEL + lane] = pair(first, second);
        }
}

struct Prompts {  // what the threads share while whole prompts attend
    Panels inputs, queries, attended;
    std::vector<float> projected;  // [batch, tokens, heads and key-value heads, width]
    Aligned<uint32_t> values;  // [batch, kv_heads, tokens / 2, width]: words of two neighbouring positions
};

// The panel of queries at `position` of one head: its 32 mixed values, as words, into `to`.
static void attend_panel(const Attention& a, const uint16_t* keys, const uint32_t* values, const uint32_t* queries,
                         long position, long filled, Aligned<float>& room, uint32_t* to) {
    const long seen = position + filled, padded_keys = padded(seen, TILE) + 2;
    room.resize(padded_keys * PANEL * 3 / 2 + PANEL);
    auto scores = (float(*)[PANEL])room.data();
    auto words = (uint32_t*)(room.data() + padded_keys * PANEL);
    alignas(64) float sums[PANEL], out[TILE][PANEL];
    const char* groups[4];
    for (long s = 0; s < seen; s += TILE) {
        const long at = std::min(s, a.max_tokens - TILE);
        for (long g = 0; g < 4; g++) groups[g] = (const char*)(keys + (at + 3 * g) * a.width);
        tile_of(filled, groups, a.width * 2, 4, queries, a.width / 2, nullptr, scores + at);
    }
    if (filled <= 16)  // lanes without a query
        for (long s = 0; s < seen; s++) std::fill(scores[s] + 16, scores[s] + PANEL, 0.0f);
    causal_shares(scores, seen, position, 1 / std::sqrt((float)a.width), words, sums);
    for (long d = 0; d < a.width; d += TILE) {
        const long at = std::min(d, a.width - TILE);
        for (long g = 0; g < 4; g++) groups[g] = (const char*)(values + at + 3 * g);
        tile_of(filled, groups, 4, a.width * 4, words, (seen + 1) / 2, nullptr, out);
        for (long r = 0; r < TILE; r += 2)
            for (long lane = 0; lane < filled; lane++)
                to[(at + r) / 2 * PANEL + lane] = pair(out[r][lane] / sums[lane], out[r + 1][lane] / sums[lane]);
    }
}

// Rotates and stores what was projected for position t of sequence b.
static void place_heads(const Attention& a, Prompts& p, long b, long t, long tokens) {
    const long parts = a.heads + 2 * a.kv_heads, panels = (tokens + PANEL - 1) / PANEL;
    for (long part = 0; part < parts; part++) {
        float* head = p.projected.data() + ((b * tokens + t) * parts + part) * a.width;
        const bool is_query = part < a.heads, is_key = !is_query && part < a.heads + a.kv_heads;
        if (is_query) {
            turn<Bf16>(a, head, a.query_norm, t);
            p.queries.put(((b * a.heads + part) * panels + t / PANEL) * PANEL + t % PANEL, head);
            continue;
        }
        if (is_key) turn<Bf16>(a, head, a.key_norm, t);
        const long kv = b * a.kv_heads + part - a.heads - (is_key ? 0 : a.kv_heads);
        uint16_t* cached = (uint16_t*)(is_key ? a.keys : a.values) + (kv * a.max_tokens + t) * a.width;
        for (long d = 0; d < a.width; d++) cached[d] = Bf16::round(head[d]);
        if (is_key) continue;
        auto words = (uint16_t*)(p.values.data() + (kv * ((tokens + 1) / 2) + t / 2) * a.width) + t % 2;
        for (long d = 0; d < a.width; d++) words[2 * d] = cached[d];
    }
}

static void shape_prompts(const Attention& a, Prompts& p, long batch, long tokens) {
    const long panels = (tokens + PANEL - 1) / PANEL;
    p.queries.shape(batch * a.heads * panels * PANEL, a.width);
    p.projected.resize(batch * tokens * (a.heads + 2 * a.kv_heads) * a.width);
    p.values.assign(batch * a.kv_heads * ((tokens + 1) / 2) * a.width, 0);
}

// What was projected attends: put(position, head, words) gets the words of each position and head, PANEL
// apart. For all threads, after a barrier; ends with one.
template <class Put>
static void attend_prompts(const Attention& a, Prompts& p, long batch, long tokens, Put put) {
    const long panels = (tokens + PANEL - 1) / PANEL, couples = (tokens + 1) / 2, group = a.heads / a.kv_heads;
    // Two positions share the words of the values, so a thread takes both.
#pragma omp for schedule(static)
    for (long n = 0; n < batch * couples; n++) {
        const long b = n / couples, t = n % couples * 2;
        place_heads(a, p, b, t, tokens);
        if (t + 1 < tokens) place_heads(a, p, b, t + 1, tokens);
    }
    Aligned<float> room;
    Aligned<uint32_t> mixed(a.width / 2 * PANEL);
#pragma omp for schedule(dynamic)
    for (long n = 0; n < batch * a.heads * panels; n++) {
        const long panel = panels - 1 - n / (batch * a.heads);  // the longest first
        const long b = n % (batch * a.heads) / a.heads, head = n % a.heads, kv = b * a.kv_heads + head / group;
        const long position = panel * PANEL, filled = std::min(PANEL, tokens - position);
        attend_panel(a, (const uint16_t*)a.keys + kv * a.max_tokens * a.width, p.values.data() + kv * couples * a.width,
                     p.queries.of((b * a.heads + head) * panels + panel), position, filled, room, mixed.data());
        for (long lane = 0; lane < filled; lane++) put(b * tokens + position + lane, head, mixed.data() + lane);
    }
}

static void many_attention(const Attention& a, uint16_t* stream, long batch, long tokens, int threads) {
    static Prompts p;
    const long rows = (a.heads + 2 * a.kv_heads) * a.width;
    shape_prompts(a, p, batch, tokens);
    p.inputs.shape(batch * tokens, a.hidden);
    p.attended.shape(batch * tokens, a.heads * a.width);
#pragma omp parallel num_threads(threads)
    {
        normed_panels(stream, (const uint16_t*)a.norm, a.eps, p.inputs);
        many_products<1>((const uint16_t*)a.qkv, rows, a.hidden, p.inputs,
                         [&](long row, long skip, long panel, float(*out)[PANEL]) {
                             by_position(p.inputs, panel, skip, out, [&](long n, __m512 sums, __mmask16 which) {
                                 const uint16_t* bias = (const uint16_t*)a.bias;
                                 if (bias) sums = _mm512_add_ps(sums, read_masked(bias + row, which));
                                 _mm512_mask_storeu_ps(p.projected.data() + n * rows + row, which, sums);
                             });
                         });
#pragma omp barrier
        attend_prompts(a, p, batch, tokens, [&](long at, long head, const uint32_t* words) {
            uint32_t* to = p.attended.of(at / PANEL) + head * a.width / 2 * PANEL + at % PANEL;
            for (long d = 0; d < a.width / 2; d++) to[d * PANEL] = words[d * PANEL];
        });
        add_to_stream(stream, a.hidden, (const uint16_t*)a.out, a.heads * a.width, p.attended);
    }
}

// The same between the two products: from [batch * tokens, rows of q, k and v] to [batch * tokens, heads * width].
static void many_scores(const Attention& a, const uint16_t* projected, uint16_t* attended, long batch, long tokens,
                        int threads) {
    static Prompts p;
    shape_prompts(a, p, batch, tokens);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (long i = 0; i < (long)p.projected.size(); i++) p.projected[i] = Bf16::read(projected[i]);
        attend_prompts(a, p, batch, tokens, [&](long at, long head, const uint32_t* words) {
            uint32_t* to = (uint32_t*)(attended + (at * a.heads + head) * a.width);
            for (long d = 0; d < a.width / 2; d++) to[d] = words[d * PANEL];
        });
    }
}

#endif
