// Attention without a mask, in bfloat16, for many keys: softmax(scale * queries x keys) x values, with sums in float32.
//
//   once    each kv head's keys and values are laid out so that a vector holds pairs of them for 16 outputs (``Laid``)
//   then    ROWS queries at a time, over BLOCK keys at a time: scores -> weights -> their share of the values, so that neither scores nor weights
//           are ever written out; when a block brings a higher score, what was gathered before it shrinks to match
//
// Source: online softmax as in FlashAttention (2205.14135), section 3.1.

#include "kernels.h"

namespace {

// Strides, in numbers, of media, tokens and heads; within a head they lie side by side.
struct Strides {
    int64_t medium, token, head;
};

struct Attention {
    int64_t media, targets, sources, heads, kv_heads, width;
    Strides query, key, value, out;
    int64_t at(const Strides& s, int64_t unit, int64_t of) const { return unit / of * s.medium + unit % of * s.head; }
};

#if defined(__AVX512BF16__)
const int ROWS = 6, BLOCK = 256, WIDEST = 128;

INLINE F16 add_pairs(F16 sum, __m512i a, __m512i b) { return (F16)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }

INLINE __m512i pair(const uint16_t* p) {
    int32_t both;
    memcpy(&both, p, 4);
    return _mm512_set1_epi32(both);
}

INLINE void round16(uint16_t* to, F16 x) {
    const __m256bh half = _mm512_cvtneps_pbh((__m512)x);
    memcpy(to, &half, 32);
}

// One head's keys and values, zeros where they end.
struct Laid {
    int64_t pairs, vectors, sources;  // of the width: in pairs, in vectors of 16; keys up to a whole block
    uint16_t *keys, *values;          // [16 keys][pair][16][2]; [2 keys][vector][16][2]
    Laid(const Attention& a, uint16_t* memory, int64_t head)
        : pairs((a.width + 1) / 2), vectors((a.width + 15) / 16), sources((a.sources + BLOCK - 1) / BLOCK * BLOCK) {
        keys = memory + head * numbers();
        values = keys + sources * pairs * 2;
    }
    int64_t numbers() const { return sources * (pairs * 2 + vectors * 16); }
    void fill(const Attention& a, const uint16_t* key, const uint16_t* value) {
        for (int64_t s = 0; s < sources; s++) {
            const uint16_t *k = key + s * a.key.token, *v = value + s * a.value.token;
            for (int64_t e = 0; e < pairs * 2; e++)
                keys[(s / 16 * pairs + e / 2) * 32 + s % 16 * 2 + e % 2] = s < a.sources && e < a.width ? k[e] : 0;
            for (int64_t e = 0; e < vectors * 16; e++)
                values[(s / 2 * vectors + e / 16) * 32 + e % 16 * 2 + s % 2] = s < a.sources && e < a.width ? v[e] : 0;
        }
    }
};

// ROWS queries of one head, on their way through the keys.
struct Rows {
    alignas(64) float score[ROWS][BLOCK];
    alignas(64) uint16_t weight[ROWS][BLOCK];
    alignas(64) uint16_t query[ROWS][WIDEST];
    F16 found[ROWS][WIDEST / 16];
    float top[ROWS], sum[ROWS];

    void start(const uint16_t* from, const Attention& a, int64_t left) {
        memset(query, 0, sizeof query), memset(found, 0, sizeof found), memset(sum, 0, sizeof sum);
        for (int i = 0; i < ROWS; i++) memcpy(query[i], from + (i < left ? i : left - 1) * a.query.token, a.width * 2), top[i] = -INFINITY;
    }

    void compare(const Laid& laid, int64_t first, float scale) {
        for (int64_t j = 0; j < BLOCK; j += 64) {
            F16 sums[ROWS][4] = {};
            const uint16_t* keys = laid.keys + (first + j) / 16 * laid.pairs * 32;
            for (int64_t e = 0; e < laid.pairs; e++) {
                __m512i key[4];
                for (int x = 0; x < 4; x++) key[x] = _mm512_loadu_si512(keys + (x * laid.pairs + e) * 32);
                for (int i = 0; i < ROWS; i++)
                    for (int x = 0; x < 4; x++) sums[i][x] = add_pairs(sums[i][x], pair(&query[i][e * 2]), key[x]);
            }
            for (int i = 0; i < ROWS; i++)
                for (int x = 0; x < 4; x++) store(&score[i][j + x * 16], sums[i][x] * scale);
        }
    }

    void weigh(int64_t keys) {  // of the block, those that are real
        for (int i = 0; i < ROWS; i++) {
            for (int64_t j = keys; j < BLOCK; j++) score[i][j] = -INFINITY;
            F16 most = all(top[i]), part = {};
            for (int j = 0; j < BLOCK; j += 16) most = load(score[i] + j) > most ? load(score[i] + j) : most;
            const float now = largest(most), shrink = expf(top[i] - now);
            for (int j = 0; j < BLOCK; j += 16) {
                const F16 share = exp16(load(score[i] + j) - now);
                part = part + share;
                round16(&weight[i][j], share);
            }
            sum[i] = sum[i] * shrink + total(part), top[i] = now;
            for (F16& numbers : found[i]) numbers = numbers * shrink;
        }
    }

    template <int VECTORS> void gather(const Laid& laid, int64_t first) {
        F16 sums[ROWS][VECTORS];
        for (int i = 0; i < ROWS; i++)
            for (int e = 0; e < VECTORS; e++) sums[i][e] = found[i][e];
        for (int64_t j = 0; j < BLOCK; j += 2) {
            const uint16_t* values = laid.values + (first + j) / 2 * VECTORS * 32;
            __m512i value[VECTORS];
            for (int e = 0; e < VECTORS; e++) value[e] = _mm512_loadu_si512(values + e * 32);
            for (int i = 0; i < ROWS; i++)
                for (int e = 0; e < VECTORS; e++) sums[i][e] = add_pairs(sums[i][e], pair(&weight[i][j]), value[e]);
        }
        for (int i = 0; i < ROWS; i++)
            for (int e = 0; e < VECTORS; e++) found[i][e] = sums[i][e];
    }

    void finish(uint16_t* to, const Attention& a, int64_t left) {
        for (int i = 0; i < ROWS && i < left; i++) {
            uint16_t row[WIDEST];
            for (int e = 0; e < WIDEST / 16; e++) round16(row + e * 16, found[i][e] / sum[i]);
            memcpy(to + i * a.out.token, row, a.width * 2);
        }
    }
};

template <int VECTORS> void attend(const Attention& a, const uint16_t* query, const Laid& laid, uint16_t* out, int64_t first, int64_t last, float scale) {
    Rows rows;
    for (int64_t t = first; t < last; t += ROWS) {
        rows.start(query + t * a.query.token, a, last - t);
        for (int64_t s = 0; s < laid.sources; s += BLOCK) {
            rows.compare(laid, s, scale);
            rows.weigh(a.sources - s < BLOCK ? a.sources - s : BLOCK);
            rows.gather<VECTORS>(laid, s);
        }
        rows.finish(out + t * a.out.token, a, last - t);
    }
}

decltype(&attend<1>) const OF_WIDTH[] = {attend<1>, attend<2>, attend<3>, attend<4>, attend<5>, attend<6>, attend<7>, attend<8>};
#endif

}  // namespace

extern "C" {

// The widest head this processor's kernel takes; 0: there is none, for want of products of bfloat16.
int64_t sensorium_attention_width() {
#if defined(__AVX512BF16__)
    return WIDEST;
#else
    return 0;
#endif
}

// query (media, targets, heads, width), key and value (media, sources, kv heads, width) -> out, like query. 0 when there is no memory for it.
int sensorium_attend(const Attention* a, const uint16_t* query, const uint16_t* key, const uint16_t* value, uint16_t* out, float scale, int threads) {
#if defined(__AVX512BF16__)
    const int64_t kept = a->media * a->kv_heads, asked = a->media * a->heads, piece = 16 * ROWS, pieces = (a->targets + piece - 1) / piece;
    uint16_t* memory = (uint16_t*)aligned_alloc(64, kept * Laid(*a, nullptr, 0).numbers() * 2);
    if (!memory) return 0;
    together(threads, [&](Member& m) {
        m.share((int)kept, [&](int n) { Laid(*a, memory, n).fill(*a, key + a->at(a->key, n, a->kv_heads), value + a->at(a->value, n, a->kv_heads)); });
        m.share((int)(asked * pieces), [&](int unit) {
            const int64_t n = unit / pieces, first = unit % pieces * piece, last = first + piece < a->targets ? first + piece : a->targets;
            const Laid laid(*a, memory, n * a->kv_heads / a->heads);
            OF_WIDTH[laid.vectors - 1](*a, query + a->at(a->query, n, a->heads), laid, out + a->at(a->out, n, a->heads), first, last, scale);
        });
    });
    free(memory);
    return 1;
#else
    return 0;
#endif
}
}
