// Decoding: tokens through every layer to scores over the vocabulary, in one call, by one team of threads.
//
// Each row of the batch has a cache of its own. Keys lie in blocks of 16 places, [block][E][16], so that one vector holds a number of 16 keys;
// values lie place after place, [place][E]; both in float16. Attention goes over the places in use and no others.

#include "kernels.h"

extern "C" {
struct Norm {
    const float *scale, *shift;  // null: none
    int64_t rms;
    double eps;
};

struct Layer {
    Norm attention_norm;
    Linear query, key, value, out;
    uint16_t *keys, *values;  // [row][kv head] of room places
    Norm cross_norm;
    Linear cross_query, cross_out;  // bits 0: no cross-attention
    const uint16_t *cross_keys, *cross_values;  // [row][kv head] of sources places
    Norm mlp_norm;
    Linear gate, up, down;  // gate.bits 0: not gated
};

struct Net {
    int64_t width, depth, heads, kv_heads, head, hidden, act, room;
    int64_t cross_heads, cross_head, sources;
    const Layer* layers;
    Linear table, scores;
    const float* places;          // [place][width], or null
    const float *cosine, *sine;   // [place][head / 2], or null
    Norm norm;
};

// One call's tokens, all rows' one after another.
struct Tokens {
    int64_t count, rows;
    const int64_t *id, *row, *place;
    const float* given;      // [given row][width]: what ids below 0 stand for, -1 the first row; or null
    const int64_t* last;     // [row] index of the token whose scores are wanted; -1 for none
    float* logits;           // [row][vocabulary]
    const int64_t* watched;  // [layer][head] number of each watched head of the cross-attention; -1 for none
    float* looks;            // [watched head][token][source], what it gave each source; or null
};
}

namespace {

const int64_t MANY = 128, FEW = 4;  // tokens that go through the layers together; tokens that each thread prepares for itself

int64_t padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

void normalise(const Norm& norm, const float* x, int64_t width, float* out) {
    F16 sum = {}, squares = {};
    float mean = 0;
    if (!norm.rms) {
        for (int64_t i = 0; i < width; i += 16) sum += load(x + i);
        mean = total(sum) / width;
    }
    for (int64_t i = 0; i < width; i += 16) {
        F16 v = load(x + i) - mean;
        squares = fma16(v, v, squares);
    }
    const float factor = 1.0f / sqrtf(total(squares) / width + (float)norm.eps);
    for (int64_t i = 0; i < width; i += 16) {
        F16 v = (load(x + i) - mean) * factor;
        if (norm.scale) v *= load(norm.scale + i);
        if (norm.shift) v += load(norm.shift + i);
        store(out + i, v);
    }
}

void look_up(const Linear& table, int64_t id, float* out) {
    const int64_t lane = id % 16, size = table.bits * 64;
    for (int64_t g = 0; g < table.groups; g++, out += 32) {
        const int64_t at = id / 16 * table.groups + g;
        const uint8_t* codes = table.codes + at * size + lane * 4;
        const float scale = from_half(table.scale[at * 16 + lane]), low = table.bits == 4 ? from_half(table.low[at * 16 + lane]) : 0;
        for (int k = 0; k < 32; k++) {
            if (table.bits == 8) out[k] = (codes[k / 4 * 64 + k % 4] - 128) * scale;
            else out[k] = (codes[k % 16 / 4 * 64 + k % 4] >> (k < 16 ? 0 : 4) & 15) * scale + low;
        }
    }
}

// 16 J numbers of the values, in the shares that ``C`` heads give them.
template <int C, int J> INLINE void mix(const float* weight, int64_t stride, const uint16_t* values, int64_t used, int64_t E, float* out) {
    F16 sum[C][J] = {};
    for (int64_t s = 0; s < used; s++)
        for (int j = 0; j < J; j++) {
            const F16 value = load_half(values + s * E + j * 16);
            for (int c = 0; c < C; c++) sum[c][j] = fma16(value, all(weight[c * stride + s]), sum[c][j]);
        }
    for (int c = 0; c < C; c++)
        for (int j = 0; j < J; j++) store(out + c * E + j * 16, sum[c][j]);
}

// ``C`` heads of one token that share keys and values.
template <int C> void attend(const float* query, const uint16_t* keys, const uint16_t* values, int64_t used, int64_t E, float* weight,
                             int64_t stride, float* out) {
    F16 most[C];
    for (int c = 0; c < C; c++) most[c] = all(-1e30f);
    const I16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int64_t s = 0; s < used; s += 16) {
        F16 sum[C][4] = {};
        for (int64_t e = 0; e < E; e += 4)
            for (int i = 0; i < 4; i++) {
                F16 key = load_half(keys + s * E + (e + i) * 16);
                for (int c = 0; c < C; c++) sum[c][i] = fma16(key, all(query[c * E + e + i]), sum[c][i]);
            }
        for (int c = 0; c < C; c++) {
            F16 score = (sum[c][0] + sum[c][1]) + (sum[c][2] + sum[c][3]);
            score = lane < (int32_t)(used - s) ? score : all(-1e30f);
            most[c] = score > most[c] ? score : most[c];
            store(weight + c * stride + s, score);
        }
    }
    float share[C];
    for (int c = 0; c < C; c++) {
        const float top = largest(most[c]);
        F16 sum = {};
        for (int64_t s = 0; s < used; s += 16) {
            F16 p = exp16(load(weight + c * stride + s) - top);
            sum += p;
            store(weight + c * stride + s, p);
        }
        share[c] = 1.0f / total(sum);
        for (int64_t s = 0; s < used; s += 16) store(weight + c * stride + s, load(weight + c * stride + s) * share[c]);
    }
    int64_t e = 0;
    for (; e + 64 <= E; e += 64) mix<C, 4>(weight, stride, values + e, used, E, out + e);
    for (; e < E; e += 16) mix<C, 1>(weight, stride, values + e, used, E, out + e);
}

void attend_heads(int count, const float* query, const uint16_t* keys, const uint16_t* values, int64_t used, int64_t E, float* weight,
                  int64_t stride, float* out) {
    for (; count >= 4; count -= 4, query += 4 * E, out += 4 * E) attend<4>(query, keys, values, used, E, weight, stride, out);
    if (count == 3) attend<3>(query, keys, values, used, E, weight, stride, out);
    if (count == 2) attend<2>(query, keys, values, used, E, weight, stride, out);
    if (count == 1) attend<1>(query, keys, values, used, E, weight, stride, out);
}

// What all threads work on.
struct Work {
    const Net& net;
    const Tokens& tokens;
    int64_t D, Q, H, widest, many;  // widths, all of whole groups
    float *x, *query, *mixed, *hidden, *last;
    void* rounded;
    void* memory;

    Work(const Net& net_, const Tokens& tokens_) : net(net_), tokens(tokens_) {
        const int64_t cross = net.cross_heads * net.cross_head;
        D = net.width, H = net.hidden, Q = net.heads * net.head > cross ? net.heads * net.head : cross;
        widest = D > H ? D : H;
        widest = widest > Q ? widest : Q;
        many = tokens.count < MANY ? tokens.count : MANY;
        const int64_t held = many > tokens.rows ? many : tokens.rows, floats = many * (D + 2 * Q + H) + tokens.rows * D + 16;
        memory = calloc(floats * 4 + Rounded::bytes(held, widest / 32) + 64, 1);
        x = (float*)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
        query = x + many * D, mixed = query + many * Q, hidden = mixed + many * Q, last = hidden + many * H;
        rounded = last + tokens.rows * D;
    }
    ~Work() { free(memory); }
};

// What one thread keeps for itself while it goes through the layers.
struct Walk {
    Work& work;
    const Net& net;
    const Tokens& tokens;
    Member& member;
    float *row, *part, *weight;
    int64_t stride, first = 0, count = 0;
    void* own;
    void* memory;

    Walk(Work& w, Member& m) : work(w), net(w.net), tokens(w.tokens), member(m) {
        stride = padded(net.room > net.sources ? net.room : net.sources, 16);
        const int64_t head = net.head > 16 ? net.head : 16, floats = work.widest + work.many * head + 4 * stride;
        memory = malloc(floats * 4 + Rounded::bytes(FEW, work.widest / 32) + 64);
        row = (float*)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
        part = row + work.widest, weight = part + work.many * head;
        own = weight + 4 * stride;
    }
    ~Walk() { free(memory); }

    // Rows of x, normalised if there is a norm, rounded. Few rows are prepared by every thread for itself, which is quicker than meeting.
    Rounded prepare(const Norm* norm, const float* x, int64_t rows, int64_t width, int64_t stride) {
        Rounded out(rows < FEW ? own : work.rounded, rows < FEW ? FEW : rows, width / 32);
        auto one = [&](int r) {
            if (norm) normalise(*norm, x + r * stride, width, row);
            out.round(r, norm ? row : x + r * stride, width);
        };
        if (rows >= FEW) member.share((int)rows, one);
        else for (int r = 0; r < rows; r++) one(r);
        return out;
    }

    // y = the product, or what it adds to y.
    void product(const Linear& w, const Rounded& x, float* y, int64_t stride, bool add) {
        member.share(w.blocks(), [&](int block) {
            multiply(w, x, block, 0, count, [&](int64_t r, F16 out) {
                float* to = y + r * stride + block * 16;
                store(to, add ? load(to) + out : out);
            });
        });
    }

    // One head's numbers of every token: made, turned to their places, and put where attention finds them.
    void project(const Layer& layer, const Rounded& x, int unit) {
        const int64_t E = net.head, K = net.kv_heads, N = net.heads, half = E / 2;
        const int kind = unit < N ? 0 : unit < N + K ? 1 : 2;
        const int64_t head = kind == 0 ? unit : (unit - N) % K;
        const Linear& w = kind == 0 ? layer.query : kind == 1 ? layer.key : layer.value;
        for (int64_t b = 0; b < E / 16; b++)
            multiply(w, x, (int)(head * (E / 16) + b), 0, count, [&](int64_t r, F16 out) { store(part + r * E + b * 16, out); });
        for (int64_t r = 0; r < count; r++) {
            float* p = part + r * E;
            const int64_t place = tokens.place[first + r], cache = (tokens.row[first + r] * K + head) * net.room;
            if (kind < 2 && net.cosine) {
                const float *c = net.cosine + place * half, *s = net.sine + place * half;
                for (int64_t i = 0; i < half; i++) {
                    const float one = p[i], other = p[i + half];
                    p[i] = one * c[i] - other * s[i];
                    p[i + half] = other * c[i] + one * s[i];
                }
            }
            if (kind == 0) {
                const float scale = 1.0f / sqrtf((float)E);
                for (int64_t e = 0; e < E; e++) work.query[r * work.Q + head * E + e] = p[e] * scale;
            } else if (kind == 1) {
                uint16_t* to = layer.keys + (cache + place / 16 * 16) * E + place % 16;
                for (int64_t e = 0; e < E; e++) to[e * 16] = to_half(p[e]);
            } else {
                uint16_t* to = layer.values + (cache + place) * E;
                for (int64_t e = 0; e < E; e++) to[e] = to_half(p[e]);
            }
        }
    }

    void self_attention(const Layer& layer) {
        const Rounded x = prepare(&layer.attention_norm, work.x, count, net.width, work.D);
        member.share((int)(net.heads + 2 * net.kv_heads), [&](int unit) { project(layer, x, unit); });
        const int64_t group = net.heads / net.kv_heads, at_once = count * net.kv_heads >= member.team.count ? group : 1;
        const int units = (int)(net.heads / at_once);
        member.share((int)count * units, [&](int unit) {
            const int64_t r = unit / units, head = unit % units * at_once, E = net.head;
            const int64_t cache = (tokens.row[first + r] * net.kv_heads + head / group) * net.room * E;
            const int64_t at = r * work.Q + head * E;
            attend_heads((int)at_once, work.query + at, layer.keys + cache, layer.values + cache, tokens.place[first + r] + 1, E, weight, stride,
                         work.mixed + at);
        });
        product(layer.out, prepare(nullptr, work.mixed, count, net.heads * net.head, work.Q), work.x, work.D, true);
    }

    void cross_attention(const Layer& layer, int64_t number) {
        const Rounded x = prepare(&layer.cross_norm, work.x, count, net.width, work.D);
        product(layer.cross_query, x, work.query, work.Q, false);
        const int64_t N = net.cross_heads, E = net.cross_head, S = net.sources, room = padded(S, 16);
        member.share((int)(count * N), [&](int unit) {
            const int64_t r = unit / N, head = unit % N, at = r * work.Q + head * E;
            const int64_t cache = (tokens.row[first + r] * N + head) * room * E;
            float query[512];
            for (int64_t e = 0; e < E; e++) query[e] = work.query[at + e] / sqrtf((float)E);
            attend_heads(1, query, layer.cross_keys + cache, layer.cross_values + cache, S, E, weight, stride, work.mixed + at);
            const int64_t watched = tokens.looks ? tokens.watched[number * N + head] : -1;
            if (watched >= 0) memcpy(tokens.looks + (watched * tokens.count + first + r) * S, weight, S * 4);
        });
        product(layer.cross_out, prepare(nullptr, work.mixed, count, N * E, work.Q), work.x, work.D, true);
    }

    void mlp(const Layer& layer) {
        const Rounded x = prepare(&layer.mlp_norm, work.x, count, net.width, work.D);
        member.share(layer.up.blocks(), [&](int block) {
            const bool gated = layer.gate.bits;
            if (gated) multiply(layer.gate, x, block, 0, count, [&](int64_t r, F16 out) { store(part + r * 16, activate(out, net.act)); });
            multiply(layer.up, x, block, 0, count, [&](int64_t r, F16 out) {
                store(work.hidden + r * work.H + block * 16, gated ? out * load(part + r * 16) : activate(out, net.act));
            });
        });
        product(layer.down, prepare(nullptr, work.hidden, count, net.hidden, work.H), work.x, work.D, true);
    }

    void run() {
        for (first = 0; first < tokens.count; first += count) {
            count = tokens.count - first < MANY ? tokens.count - first : MANY;
            member.share((int)count, [&](int r) {
                float* x = work.x + r * work.D;
                const int64_t id = tokens.id[first + r];
                if (id < 0) {
                    memcpy(x, tokens.given + (-1 - id) * net.width, net.width * 4);
                    return;
                }
                look_up(net.table, id, x);
                const float* place = net.places ? net.places + tokens.place[first + r] * net.width : nullptr;
                for (int64_t i = 0; place && i < net.width; i++) x[i] += place[i];
            });
            for (int64_t i = 0; i < net.depth; i++) {
                self_attention(net.layers[i]);
                if (net.layers[i].cross_query.bits) cross_attention(net.layers[i], i);
                mlp(net.layers[i]);
            }
            member.share((int)tokens.rows, [&](int b) {
                const int64_t r = tokens.last[b] - first;
                if (tokens.last[b] >= first && r < count) memcpy(work.last + b * work.D, work.x + r * work.D, net.width * 4);
            });
        }
        count = tokens.rows;
        const Rounded x = prepare(&net.norm, work.last, count, net.width, work.D);
        member.share(net.scores.blocks(), [&](int block) {
            multiply(net.scores, x, block, 0, count, [&](int64_t b, F16 out) {
                if (tokens.last[b] >= 0) memcpy(tokens.logits + b * net.scores.rows + block * 16, &out, net.scores.here(block) * 4);
            });
        }, 16);
    }
};

}  // namespace

extern "C" void sensorium_decode(const Net* net, const Tokens* tokens, int threads) {
    Work work(*net, *tokens);
    together(threads, [&](Member& member) { Walk(work, member).run(); });
}
