// Products of few rows on a CPU at the speed of reading the weights, for native.cpp.
//
// Every product takes rows of a row-major matrix and B input vectors (B = 1, 2, 4 or 8). Several rows
// far apart are read at once: one stream for each thread does not fill the memory's channels.

#pragma once

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float floats __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint32_t words __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#if defined(__AVX512BF16__)
#define HAVE_DOT_BF16 1
#endif

static const int MAX_BATCH = 8;

// ---- number formats: how weights are stored, and how inputs lie so that the products are fast ----

struct Fp32 {
    typedef float weight;
    typedef float input;
    typedef floats sum;
    static const long BLOCK = LANES;
    static float read(weight w) { return w; }
    static weight round(float f) { return f; }
    static void put(input* x, long k, float f) { x[k] = f; }
    static void madd(sum& a, const weight* w, const input* x) { a += *(const floats*)w * *(const floats*)x; }
};

struct Bf16 {
    typedef uint16_t weight;
    static float read(weight w) {
        uint32_t bits = (uint32_t)w << 16;
        float f;
        memcpy(&f, &bits, 4);
        return f;
    }
    static weight round(float f) {  // to nearest even; a NaN stays one
        uint32_t bits;
        memcpy(&bits, &f, 4);
        if (f != f) return 0x7fc0;
        return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    }
#ifdef HAVE_DOT_BF16
    typedef uint16_t input;
    typedef floats sum;
    static const long BLOCK = 32;
    static void put(input* x, long k, float f) { x[k] = round(f); }
    static void madd(sum& a, const weight* w, const input* x) {
        a = (floats)_mm512_dpbf16_ps((__m512)a, (__m512bh)_mm512_loadu_si512(w), (__m512bh)_mm512_loadu_si512(x));
    }
#else
    // Two neighbours lie in one word; inputs are kept as the floats that meet the lower and upper halves.
    typedef float input;
    typedef floats sum;
    static const long BLOCK = 2 * LANES;
    static void put(input* x, long k, float f) {
        x[k / BLOCK * BLOCK + k % 2 * LANES + k % BLOCK / 2] = read(round(f));
    }
    static void madd(sum& a, const weight* w, const input* x) {
        words both = *(const words*)w;
        a += (floats)(both << 16) * *(const floats*)x + (floats)(both & 0xffff0000u) * *(const floats*)(x + LANES);
    }
#endif
};

static float total(floats a) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)a);
#else
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += a[i];
    return sum;
#endif
}

// e^x to 2e-7 relative: 2^n by the exponent's bits, the rest by its series; vectorises where expf does not.
static inline float exponential(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f) * 1.44269504f;
    float n = std::floor(x + 0.5f), f = (x - n) * 0.693147181f;
    float e = 1 + f * (1 + f * (0.5f + f * (1 / 6.0f + f * (1 / 24.0f + f * (1 / 120.0f + f / 720)))));
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return e * power;
}

// ---- products ----

static long padded(long n, long block) { return (n + block - 1) / block * block; }

// R rows times B inputs, which are padded with zeros to whole blocks and `stride` apart.
template <class T, int R, int B>
static inline void dots(const typename T::weight* const* rows, long columns, const typename T::input* x,
                        long stride, float (*out)[B]) {
    const long whole = columns / T::BLOCK * T::BLOCK;
    typename T::sum sums[R][B] = {};
    for (long k = 0; k < whole; k += T::BLOCK)
        for (int r = 0; r < R; r++) {
            __builtin_prefetch(rows[r] + k + 1024 / sizeof(typename T::weight), 0, 3);
            for (int b = 0; b < B; b++) T::madd(sums[r][b], rows[r] + k, x + b * stride + k);
        }
    if (whole < columns)
        for (int r = 0; r < R; r++) {
            typename T::weight rest[T::BLOCK] = {};
            memcpy(rest, rows[r] + whole, (columns - whole) * sizeof(*rest));
            for (int b = 0; b < B; b++) T::madd(sums[r][b], rest, x + b * stride + whole);
        }
    for (int r = 0; r < R; r++)
        for (int b = 0; b < B; b++) out[r][b] = total(sums[r][b]);
}

struct Share {  // this thread's part of n
    long from, to;
    explicit Share(long n) {
        long threads = omp_get_num_threads(), me = omp_get_thread_num();
        from = n * me / threads;
        to = n * (me + 1) / threads;
    }
};

// Call done(row, out[P][B]) for this thread's share of `rows`. P matrices lie one after the other
// (gate and up); row r of each is computed together.
template <class T, int B, int P, class Done>
static void products(const typename T::weight* matrix, long rows, long columns, const typename T::input* x,
                     long stride, Done done) {
    constexpr int R = B <= 4 ? 4 : 2, STREAMS = R / P;
    const Share mine(rows);
    const long each = (mine.to - mine.from) / STREAMS;
    const typename T::weight* at[R];
    float out[R][B];
    for (long n = mine.from; n < mine.from + each; n++) {
        for (int s = 0; s < STREAMS; s++)
            for (int p = 0; p < P; p++) at[s * P + p] = matrix + (p * rows + n + s * each) * columns;
        dots<T, R, B>(at, columns, x, stride, out);
        for (int s = 0; s < STREAMS; s++) done(n + s * each, out + s * P);
    }
    for (long n = mine.from + STREAMS * each; n < mine.to; n++) {
        for (int p = 0; p < P; p++) at[p] = matrix + (p * rows + n) * columns;
        dots<T, P, B>(at, columns, x, stride, out);
        done(n, out);
    }
}

// Inputs of a product, one for each sequence; kept between calls, since a step has hundreds of them.
template <class T>
struct Inputs {
    std::vector<typename T::input> values;
    long stride = 0;
    void shape(long columns) {  // before the threads start
        stride = padded(columns, T::BLOCK);
        values.assign(MAX_BATCH * stride, 0);
    }
    typename T::input* of(long b) { return values.data() + b * stride; }
};

template <class T>
static void rms_norm(const float* x, const typename T::weight* weight, long n, float eps, float* out) {
    float squares = 0;
    for (long i = 0; i < n; i++) squares += x[i] * x[i];
    const float scale = 1 / std::sqrt(squares / n + eps);
    for (long i = 0; i < n; i++) out[i] = T::read(T::round(x[i] * scale)) * T::read(weight[i]);
}

// RMSNorm of each sequence of the stream [batch, hidden] into `inputs`; ends with a barrier.
template <class T>
static void normed(const typename T::weight* stream, const typename T::weight* weight, long batch, long hidden,
                   float eps, Inputs<T>& inputs) {
    std::vector<float> x(hidden);
    const Share mine(batch);
    for (long b = mine.from; b < mine.to; b++) {
        for (long i = 0; i < hidden; i++) x[i] = T::read(stream[b * hidden + i]);
        rms_norm<T>(x.data(), weight, hidden, eps, x.data());
        for (long i = 0; i < hidden; i++) T::put(inputs.of(b), i, x[i]);
    }
#pragma omp barrier
}

// Call f<B>() with the smallest B of 1, 2, 4 and 8 that holds the batch.
template <int B>
struct Width {};
template <class F>
static void with_width(long batch, F f) {
    if (batch == 1) f(Width<1>());
    else if (batch == 2) f(Width<2>());
    else if (batch <= 4) f(Width<4>());
    else f(Width<8>());
}
