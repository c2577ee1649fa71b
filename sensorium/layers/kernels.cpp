#include "kernels.h"

extern "C" {

// y (rows, w.rows) = x (rows, columns) times the matrix, plus its bias.
void sensorium_linear(const Linear* w, const float* x, int64_t rows, int64_t columns, float* y, int threads) {
    const int64_t many = 128, width = w->groups * 32, parts = (rows + many - 1) / many;
    void* memory = malloc(Rounded::bytes(rows, w->groups));
    Rounded rounded(memory, rows, w->groups);
    together(threads, [&](Member& m) {
        m.share((int)rows, [&](int row) {
            if (columns == width) return rounded.round(row, x + row * columns);
            float* padded = (float*)alloca(width * 4);
            memset(padded, 0, width * 4);
            memcpy(padded, x + row * columns, columns * 4);
            rounded.round(row, padded);
        });
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
