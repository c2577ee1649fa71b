// Activations to 8 bits, for products with many rows: each row by its own range.

#include "kernels.h"

namespace {

INLINE float from_bfloat16(uint16_t bits) {
    const uint32_t whole = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &whole, 4);
    return x;
}

// One row. With ``zero`` the codes reach from its least to its greatest; without, as far to both sides of 128.
void round_row(const uint16_t* x, int64_t columns, uint8_t* codes, float* scale, int32_t* zero) {
    float least = 0, most = 0;
    for (int64_t k = 0; k < columns; k++) {
        const float value = from_bfloat16(x[k]);
        least = value < least ? value : least;
        most = value > most ? value : most;
    }
    *scale = zero ? (most - least) / 255 : (-least > most ? -least : most) / 127;
    const float inverse = *scale > 0 ? 1 / *scale : 0, start = zero ? rintf(-least * inverse) : 128;
    if (zero) *zero = (int32_t)start;
    for (int64_t k = 0; k < columns; k++) {
        const int32_t code = (int32_t)(from_bfloat16(x[k]) * inverse + start + 0.5f);
        codes[k] = (uint8_t)(code > 255 ? 255 : code);
    }
}

}  // namespace

extern "C" {

// x (rows, columns) in bfloat16 -> codes, what one step of them is worth in each row, and, unless it is null, which code is 0.
void sensorium_round_rows(const uint16_t* x, int64_t rows, int64_t columns, uint8_t* codes, float* scale, int32_t* zero, int threads) {
    together(threads, [&](Member& m) {
        m.share((int)rows, [&](int row) { round_row(x + row * columns, columns, codes + row * columns, scale + row, zero ? zero + row : nullptr); });
    });
}
}
