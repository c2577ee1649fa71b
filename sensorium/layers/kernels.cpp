// The doors of the product alone, and the packing of float matrices.

#include "kernels.h"

namespace {

// One row of one group: 32 floats to codes, and the row's scale and low.
void pack_group(const float* x, int bits, int lane, uint8_t* codes, uint16_t* scale, uint16_t* low) {
    float least = x[0], most = x[0];
    for (int k = 1; k < 32; k++) least = x[k] < least ? x[k] : least, most = x[k] > most ? x[k] : most;
    const float largest = -least > most ? -least : most;
    *scale = to_half(bits == 8 ? largest / 127 : (most - least) / 15);
    if (bits == 4) *low = to_half(least);
    const float step = from_half(*scale), inverse = step > 0 ? 1 / step : 0, start = bits == 4 ? from_half(*low) : 0;
    int code[32];
    for (int k = 0; k < 32; k++) {
        const float c = rintf((x[k] - start) * inverse), floor = bits == 8 ? -127 : 0, top = bits == 8 ? 127 : 15;
        code[k] = (int)(c < floor ? floor : c > top ? top : c);
    }
    for (int k = 0; k < (bits == 8 ? 32 : 16); k++)
        codes[k / 4 * 64 + lane * 4 + k % 4] = (uint8_t)(bits == 8 ? code[k] + 128 : code[k] | code[k + 16] << 4);
}

}  // namespace

extern "C" {

// A float matrix into parts laid out as in kernels.h. Rows and columns that fill the last block and group are zeros and the last column again.
void sensorium_pack(const float* x, int64_t rows, int64_t columns, int64_t bits, uint8_t* codes, uint16_t* scale, uint16_t* low, int threads) {
    const int64_t groups = (columns + 31) / 32;
    together(threads, [&](Member& m) {
        m.share((int)((rows + 15) / 16), [&](int block) {
            for (int64_t unit = 0; unit < groups * 16; unit++) {
                const int64_t g = unit / 16, lane = unit % 16, row = block * 16 + lane, at = block * groups + g;
                float values[32] = {};
                for (int64_t k = 0; k < 32 && row < rows; k++) values[k] = x[row * columns + (g * 32 + k < columns ? g * 32 + k : columns - 1)];
                pack_group(values, (int)bits, (int)lane, codes + at * bits * 64, scale + at * 16 + lane, low + at * 16 + lane);
            }
        });
    });
}

// y (rows, w.rows) = x (rows, columns) times the matrix, plus its bias.
void sensorium_linear(const Linear* w, const float* x, int64_t rows, int64_t columns, float* y, int threads) {
    const int64_t many = 128, parts = (rows + many - 1) / many;
    void* memory = malloc(Rounded::bytes(rows, w->groups));
    Rounded rounded(memory, rows, w->groups);
    together(threads, [&](Member& m) {
        m.share((int)rows, [&](int row) { rounded.round(row, x + row * columns, columns); });
        const int blocks = w->blocks();
        m.share((int)parts * blocks, [&](int unit) {
            const int block = unit % blocks;
            const int64_t first = unit / blocks * many, last = first + many < rows ? first + many : rows;
            multiply(*w, rounded, block, first, last, [&](int64_t row, F16 out) {
                memcpy(y + row * w->rows + block * 16, &out, w->here(block) * 4);
            });
        });
    });
    free(memory);
}
}
