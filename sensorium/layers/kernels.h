// Vectors of sixteen, a team of threads, and the product of few-bit matrices with rounded activations.
//
// A matrix lies in blocks of 16 rows x 32 columns (a group), so that one vector holds four columns of all 16 rows:
//
//   codes  [block][group][256 or 512 bytes]   4 bits: byte j of vector i holds column 4 i + j % 4 (low half) and 16 + that (high half)
//                                             8 bits: byte j of vector i holds column 4 i + j % 4, plus 128
//   scale  [block][group][16] float16         value = code * scale + low   (4 bits)
//   low    [block][group][16] float16         value = (code - 128) * scale (8 bits)
//
// Activations are rounded for each group of 32 (``Rounded``), so the inner product is whole numbers; every row of activations is worked out by the
// same operations in the same order whatever stands beside it, so that a batch gives bit for bit what its rows give alone.

#pragma once
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <type_traits>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef float F16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef int8_t B16 __attribute__((vector_size(16)));
#define INLINE static inline __attribute__((always_inline))

INLINE F16 load(const float* p) {
    F16 v;
    memcpy(&v, p, 64);
    return v;
}
INLINE void store(float* p, F16 v) { memcpy(p, &v, 64); }
INLINE F16 all(float x) { return F16{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }

INLINE float from_half(uint16_t bits) {
#if defined(__F16C__)
    return _cvtsh_ss(bits);
#else
    _Float16 half;
    memcpy(&half, &bits, 2);
    return (float)half;
#endif
}

INLINE uint16_t to_half(float x) {
#if defined(__F16C__)
    return _cvtss_sh(x, 0);
#else
    _Float16 half = (_Float16)x;
    uint16_t bits;
    memcpy(&bits, &half, 2);
    return bits;
#endif
}

INLINE F16 load_half(const uint16_t* p) {
#if defined(__AVX512F__)
    return (F16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__F16C__)
    F16 out;
    _mm256_storeu_ps((float*)&out, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)));
    _mm256_storeu_ps((float*)&out + 8, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8))));
    return out;
#else
    F16 out;
    for (int i = 0; i < 16; i++) out[i] = from_half(p[i]);
    return out;
#endif
}

INLINE F16 fma16(F16 a, F16 b, F16 c) {
#if defined(__AVX512F__)
    return (F16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
    return a * b + c;
#endif
}

// Each of 16 sums gains four products of unsigned codes with the four signed bytes of ``act``.
INLINE I16 dot4(I16 sum, I16 codes, int32_t act) {
#if defined(__AVX512VNNI__)
    return (I16)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, _mm512_set1_epi32(act));
#elif defined(__AVX2__)
    __m256i s[2], c[2];
    memcpy(s, &sum, 64), memcpy(c, &codes, 64);
    for (int i = 0; i < 2; i++) {
#if defined(__AVXVNNI__)
        s[i] = _mm256_dpbusd_avx_epi32(s[i], c[i], _mm256_set1_epi32(act));
#else
        const int16_t a[4] = {(int8_t)act, (int8_t)(act >> 8), (int8_t)(act >> 16), (int8_t)(act >> 24)};
        const __m256i even = _mm256_set1_epi32((uint16_t)a[0] | (uint32_t)a[2] << 16), odd = _mm256_set1_epi32((uint16_t)a[1] | (uint32_t)a[3] << 16);
        s[i] = _mm256_add_epi32(s[i], _mm256_madd_epi16(_mm256_and_si256(c[i], _mm256_set1_epi16(255)), even));
        s[i] = _mm256_add_epi32(s[i], _mm256_madd_epi16(_mm256_srli_epi16(c[i], 8), odd));
#endif
    }
    memcpy(&sum, s, 64);
    return sum;
#else
    const int8_t* a = (const int8_t*)&act;
    typedef uint32_t U16 __attribute__((vector_size(64)));
    U16 c = (U16)codes;
    return sum + (I16)(c & 255) * a[0] + (I16)((c >> 8) & 255) * a[1] + (I16)((c >> 16) & 255) * a[2] + (I16)(c >> 24) * a[3];
#endif
}

INLINE float largest(F16 v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    float out = v[0];
    for (int i = 1; i < 16; i++) out = v[i] > out ? v[i] : out;
    return out;
#endif
}

template <class V> INLINE auto total(V v) {
    auto out = v[0];
    for (int i = 1; i < 16; i++) out += v[i];
    return out;
}

// e to the x, to about 1e-7 of it: two to the whole part, times a polynomial of the rest.
INLINE F16 exp16(F16 x) {
    x = x < -87.0f ? all(-87.0f) : x;
    x = x > 88.0f ? all(88.0f) : x;
    F16 shifted = x * 1.44269504f + 12582912.0f;
    I16 whole = (I16)shifted - 0x4B400000;
    F16 n = shifted - 12582912.0f;
    F16 r = fma16(n, all(-0.693359375f), x);
    r = fma16(n, all(2.12194440e-4f), r);
    F16 p = fma16(all(1.9875691500e-4f), r, all(1.3981999507e-3f));
    p = fma16(p, r, all(8.3334519073e-3f));
    p = fma16(p, r, all(4.1665795894e-2f));
    p = fma16(p, r, all(1.6666665459e-1f));
    p = fma16(p, r, all(5.0000001201e-1f));
    p = fma16(p, r * r, r + 1.0f);
    return p * (F16)((whole + 127) << 23);
}

enum Act { SILU, GELU, GELU_TANH, QUICK_GELU, RELU };

INLINE F16 activate(F16 x, int64_t act) {
    if (act == RELU) return x > 0.0f ? x : all(0);
    if (act == SILU) return x / (1.0f + exp16(-x));
    if (act == QUICK_GELU) return x / (1.0f + exp16(x * -1.702f));
    if (act == GELU_TANH) return x / (1.0f + exp16(-1.5957691216f * (x + 0.044715f * x * x * x)));
    F16 z = x * 0.70710678118f, a = z < 0.0f ? -z : z;  // erf by Abramowitz and Stegun, 7.1.26: off by less than 1.5e-7
    F16 t = 1.0f / (1.0f + 0.3275911f * a);
    F16 p = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    F16 e = 1.0f - p * exp16(-a * a);
    return 0.5f * x * (1.0f + (z < 0.0f ? -e : e));
}

// ---------------------------------------------------------------------------------------------------------------- a team of threads

// Threads of one parallel region go through the same phases; in each they take pieces of work as they come, and meet at its end.
struct Team {
    alignas(64) std::atomic<int> arrived{0};
    alignas(64) std::atomic<int> meeting{0};
    alignas(64) std::atomic<int> next[2] = {{0}, {0}};
    std::atomic<int> count{1}, asleep{0};
};

struct Member {
    Team& team;
    int me, phase = 0;

    void meet() {
        if (team.count == 1) return;
        int now = team.meeting.load(std::memory_order_relaxed);
        if (team.arrived.fetch_add(1, std::memory_order_acq_rel) == team.count - 1) {
            team.arrived.store(0, std::memory_order_relaxed);
            team.meeting.store(now + 1);
            if (team.asleep.load()) wake();
            return;
        }
        for (int spins = 0; spins < 1500; spins++) {
            if (team.meeting.load(std::memory_order_acquire) != now) return;
#if defined(__x86_64__)
            _mm_pause();
#endif
        }
        sleep(now);  // somebody else has our partner's processor: sleep, so that it comes back sooner
    }

    // Until the meeting is over. Looks again after 2 ms by itself: a wake-up that gets lost must not stop a process for ever, as one of
    // std::atomic::wait's once did.
    void sleep(int now) {
        team.asleep.fetch_add(1);
        while (team.meeting.load() == now) {
#if defined(__linux__)
            const timespec most = {0, 2'000'000};
            syscall(SYS_futex, &team.meeting, FUTEX_WAIT_PRIVATE, now, &most, nullptr, 0);
#else
            std::this_thread::sleep_for(std::chrono::microseconds(50));
#endif
        }
        team.asleep.fetch_sub(1);
    }

    void wake() {
#if defined(__linux__)
        syscall(SYS_futex, &team.meeting, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
#endif
    }

    // work(unit) for every unit, each by whichever thread is free; all are done when it returns.
    template <class Work> void share(int units, Work work, int pieces = 4) {
        std::atomic<int>& next = team.next[phase & 1];
        int chunk = units / (team.count * pieces) + 1;
        for (int first; (first = next.fetch_add(chunk, std::memory_order_relaxed)) < units;)
            for (int unit = first; unit < units && unit < first + chunk; unit++) work(unit);
        phase++;
        if (me == 0) team.next[phase & 1].store(0, std::memory_order_relaxed);
        meet();
    }
};

template <class Run> static void together(int threads, Run run) {
    Team team;
#pragma omp parallel num_threads(threads)
    {
        team.count.store(omp_get_num_threads(), std::memory_order_relaxed);  // by each the same, before its first meeting
        Member member{team, omp_get_thread_num()};
        run(member);
    }
}

// -------------------------------------------------------------------------------------------------------------------- few-bit matrices

struct Linear {
    int64_t bits, rows, groups;  // bits 0: there is no such matrix
    const uint8_t* codes;
    const uint16_t *scale, *low;
    const float* bias;
    int blocks() const { return (int)((rows + 15) / 16); }
    int here(int block) const { return rows - block * 16 < 16 ? (int)(rows - block * 16) : 16; }  // real rows of a block
    F16 start(int block) const {
        F16 out = {};
        if (bias) memcpy(&out, bias + block * 16, here(block) * 4);
        return out;
    }
};

// Activations in three bytes for two columns, k and k + 16 of a group of 32: one high byte each, and one that both share.
//
//   value of k = (256 * high + shared) * step        value of k + 16 = (256 * high + 16 * shared) * step
//
// In 4 bits a byte of the matrix is (code of k) + 16 * (code of k + 16): one product of it and the shared byte serves both columns, which
// makes three products of bytes for two columns. Rounding goes from k + 16, which settles the last four bits of shared, to k, which settles
// the others; each value is met to within 8 steps, 1/3808 of its group's largest.
//
// Why not one byte a column: SmolLM2-135M-Instruct in 4 bits then gave scores 0.0031 nats (Kullback-Leibler) from those of float
// activations, at the first token of an answer 0.0072, and the capital of France began with "L"; now they are 0.00002. That costs 3 % of
// decoding's speed, and reading 128 tokens takes 83 ms in the place of 65. Four bytes for two columns: 0.000001, but 100 ms.
struct Rounded {
    int64_t groups;
    int8_t* codes;    // [row][group][48]: 32 high, 16 shared
    float* step;      // [row][group]
    float* sum;       // [row][group], of the values
    int32_t* offset;  // [row][group], -128 times the sum of value / step
    static size_t bytes(int64_t rows, int64_t groups) { return rows * groups * 60 + 256; }
    Rounded(void* memory, int64_t rows, int64_t groups_) : groups(groups_) {
        codes = (int8_t*)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
        step = (float*)(codes + rows * groups * 48);
        sum = step + rows * groups;
        offset = (int32_t*)(sum + rows * groups);
    }
    void round(int64_t row, const float* x, int64_t columns) {
        const float top = 119 * 256;  // so that no high byte is past 127
        float last[32] = {};
        for (int64_t g = row * groups; g < (row + 1) * groups; g++, x += 32, columns -= 32) {
            if (columns < 32) memcpy(last, x, columns * 4);
            const float* from = columns < 32 ? last : x;
            const F16 a = load(from), b = load(from + 16), m = a < 0.0f ? -a : a, n = b < 0.0f ? -b : b;
            const float most = largest(m > n ? m : n), inverse = most > 1e-30f ? top / 16 / most : 0.0f;
            const I16 second = nearest(b * inverse), first = second + 16 * nearest(a * inverse - __builtin_convertvector(second, F16) * 0.0625f);
            const B16 shared = __builtin_convertvector(first, B16);
            const I16 low = __builtin_convertvector(shared, I16);
            const B16 high[2] = {__builtin_convertvector((first - low) >> 8, B16), __builtin_convertvector((second - low) >> 4, B16)};
            memcpy(codes + g * 48, high, 32), memcpy(codes + g * 48 + 32, &shared, 16);
            const int whole = total(first + 16 * second);
            step[g] = most / top;
            sum[g] = step[g] * whole;
            offset[g] = -128 * whole;
        }
    }
    static I16 nearest(F16 x) {
        const float magic = 12582912.0f;  // adding it leaves the nearest whole number in the last bits
        return (I16)(x + magic) - 0x4B400000;
    }
};

// Codes of the 32 columns, four in a vector of I16; in 4 bits the four after them are of the bytes as they lie.
template <int BITS> INLINE void unpack(const uint8_t* p, I16* c) {
    for (int i = 0; i < BITS; i++) memcpy(&c[i], p + i * 64, 64);  // one by one, so that they stay in registers
    for (int i = 0; i < 8 - BITS; i++) c[i + 8] = c[i], c[i + 4] = (c[i] >> 4) & 0x0F0F0F0F, c[i] &= 0x0F0F0F0F;
}

// ``R`` rows of activations from ``row`` with one block of the matrix.
template <int BITS, int R> INLINE void tile(const Linear& w, const Rounded& x, int block, int64_t row, F16* out) {
    const int64_t G = w.groups, at = block * G, size = BITS * 64;
    const uint8_t* codes = w.codes + at * size;
    const F16 start = w.start(block);
    for (int r = 0; r < R; r++) out[r] = start;
    for (int64_t g = 0; g < G; g++) {
        I16 c[12];
        unpack<BITS>(codes + g * size, c);
        __builtin_prefetch(codes + g * size + 2048);
        F16 scale = load_half(w.scale + (at + g) * 16), low = BITS == 4 ? load_half(w.low + (at + g) * 16) : F16{};
        for (int r = 0; r < R; r++) {
            int64_t place = (row + r) * G + g;
            const int32_t* a = (const int32_t*)(x.codes + place * 48);
            I16 high = {}, more = {}, shared = {}, other = {};
            for (int i = 0; i < 4; i++) {
                high = dot4(high, c[i], a[i]);
                more = dot4(more, c[i + 4], a[i + 4]);
                shared = dot4(shared, c[BITS == 4 ? i + 8 : i], a[i + 8]);
                if (BITS == 8) other = dot4(other, c[i + 4], a[i + 8]);
            }
            if (BITS == 8) shared += (other << 4) + x.offset[place];
            out[r] = fma16(__builtin_convertvector(((high + more) << 8) + shared, F16) * x.step[place], scale, out[r]);
            if (BITS == 4) out[r] = fma16(low, all(x.sum[place]), out[r]);
        }
    }
}

template <int BITS, int R, class Write> static void tiles(const Linear& w, const Rounded& x, int block, int64_t row, int64_t rows, Write& write) {
    for (; row + R <= rows; row += R) {
        F16 out[R];
        tile<BITS, R>(w, x, block, row, out);
        for (int r = 0; r < R; r++) write(row + r, out[r]);
    }
    if constexpr (R > 1) tiles<BITS, R / 2, Write>(w, x, block, row, rows, write);
}

// write(row, sixteen results) for every row of activations.
template <class Write> static void multiply(const Linear& w, const Rounded& x, int block, int64_t row, int64_t rows, Write write) {
    if (w.bits == 4) tiles<4, 8>(w, x, block, row, rows, write);
    else tiles<8, 8>(w, x, block, row, rows, write);
}
