/* The video VAE's causal 3x3x3 filter in a sixth of its products, and the norm before it.
 *
 * Winograd's minimal filtering over time, rows and columns (the equations are in
 * engine/codec/wan_winograd.py): 4 outputs from 6 products over time and over rows, 2 from 4 over
 * columns, since a third axis of 4 would lose half as much again to rounding. A block of tiles goes
 * through all of it before the next: what it needs stays in the second-level cache, and memory is
 * read and written once. float32; channels lie innermost and come in multiples of 16.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef ptrdiff_t idx;
typedef float v16 __attribute__((vector_size(64), aligned(4), may_alias));

#define LANES 16
#define NEAR 0.75f
#define FAR 1.5f
#define NEAR2 (NEAR * NEAR)
#define FAR2 (FAR * FAR)
/* A tile's outputs over rows and columns, and the lines that it looks at, which are its slots */
#define TALL 4
#define BROAD 2
#define LINES (TALL + 2)
#define COLUMNS (BROAD + 2)
#define SLOTS (LINES * COLUMNS)
#define FRAMES 6 /* at most, for 4 */
#define ROWS 8   /* tiles in one turn of the product */
#define TILES 64 /* tiles of a block */
/* Channels summed on their own: short sums lose less to rounding than one long. */
#define TERMS 32
/* Slots a power of two apart would all fall into the same lines of the cache. */
#define APART LANES

static inline v16 load(const float *p) { return *(const v16 *)p; }
static inline void store(float *p, v16 v) { *(v16 *)p = v; }

static inline __attribute__((always_inline)) void split6(const v16 *d, v16 *s) {
    v16 even = d[4] - FAR2 * d[2], odd = d[3] - FAR2 * d[1];
    s[0] = even - NEAR2 * (d[2] - FAR2 * d[0]);
    s[1] = even + NEAR * odd;
    s[2] = even - NEAR * odd;
    s[5] = (d[5] - FAR2 * d[3]) - NEAR2 * odd;
    even = d[4] - NEAR2 * d[2];
    odd = d[3] - NEAR2 * d[1];
    s[3] = even + FAR * odd;
    s[4] = even - FAR * odd;
}

static inline __attribute__((always_inline)) void split4(const v16 *d, v16 *s) {
    s[0] = d[0] - d[2];
    s[1] = d[2] + d[1];
    s[2] = d[2] - d[1];
    s[3] = d[3] - d[1];
}

static inline __attribute__((always_inline)) void merge4(const v16 *m, v16 *y) {
    v16 near_sum = m[1] + m[2], near_gap = m[1] - m[2];
    v16 far_sum = m[3] + m[4], far_gap = m[3] - m[4];
    y[0] = m[0] + near_sum * (1 / NEAR) + far_sum * (1 / FAR2);
    y[1] = near_gap + far_gap * (1 / FAR);
    y[2] = far_sum + NEAR * near_sum;
    y[3] = m[5] + NEAR2 * near_gap + FAR * far_gap;
}

static inline __attribute__((always_inline)) void merge2(const v16 *m, v16 *y) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] + m[3];
}

/* Frames [rows, n floats] into as many slots over time. */
static void split_frames(const float *const *frames, idx frame_row, float *slots, idx apart,
                         int count, idx rows, idx n) {
    for (idx r = 0; r < rows; r++)
        for (idx i = 0; i < n; i += LANES) {
            v16 d[FRAMES], s[FRAMES];
            for (int k = 0; k < count; k++) d[k] = load(frames[k] + r * frame_row + i);
            if (count == FRAMES)
                split6(d, s);
            else
                split4(d, s);
            for (int k = 0; k < count; k++) store(slots + k * apart + r * n + i, s[k]);
        }
}

/* A tile's 6x4 pixels into its slots over rows and columns, which lie `apart`. */
static void split_tile(const float *pixels, idx row, float *slots, idx apart, idx channels) {
    for (idx c = 0; c < channels; c += LANES) {
        v16 half[LINES][COLUMNS];
        for (int j = 0; j < COLUMNS; j++) {
            v16 d[LINES], s[LINES];
            for (int i = 0; i < LINES; i++) d[i] = load(pixels + i * row + j * channels + c);
            split6(d, s);
            for (int i = 0; i < LINES; i++) half[i][j] = s[i];
        }
        for (int i = 0; i < LINES; i++) {
            v16 s[COLUMNS];
            split4(half[i], s);
            for (int j = 0; j < COLUMNS; j++) store(slots + (i * COLUMNS + j) * apart + c, s[j]);
        }
    }
}

/* Products of the slots into a tile's 4x2 pixels. */
static void merge_tile(const float *products, idx apart, float *pixels, idx row, idx channels) {
    for (idx c = 0; c < channels; c += LANES) {
        v16 half[TALL][COLUMNS];
        for (int j = 0; j < COLUMNS; j++) {
            v16 m[LINES], y[TALL];
            for (int i = 0; i < LINES; i++) m[i] = load(products + (i * COLUMNS + j) * apart + c);
            merge4(m, y);
            for (int i = 0; i < TALL; i++) half[i][j] = y[i];
        }
        for (int i = 0; i < TALL; i++) {
            v16 y[BROAD];
            merge2(half[i], y);
            for (int j = 0; j < BROAD; j++) store(pixels + i * row + j * channels + c, y[j]);
        }
    }
}

/* out [8, 16 panels] (+)= slots [8, terms of channels] @ kernel [terms, 16 panels] */
#define PRODUCT(NAME, PANELS)                                                                     \
    static void NAME(const float *slots, idx channels, idx terms, const float *kernel, float *out, \
                     idx row, int add) {                                                          \
        v16 sum[ROWS][PANELS] = {0};                                                              \
        for (idx k = 0; k < terms; k++) {                                                         \
            v16 panel[PANELS];                                                                    \
            for (int p = 0; p < PANELS; p++)                                                      \
                panel[p] = load(kernel + (k * PANELS + p) * LANES);                               \
            for (int m = 0; m < ROWS; m++)                                                        \
                for (int p = 0; p < PANELS; p++) sum[m][p] += slots[m * channels + k] * panel[p]; \
        }                                                                                         \
        for (int m = 0; m < ROWS; m++)                                                            \
            for (int p = 0; p < PANELS; p++) {                                                    \
                float *to = out + m * row + p * LANES;                                            \
                if (add) sum[m][p] += load(to);                                                   \
                store(to, sum[m][p]);                                                             \
            }                                                                                     \
    }
PRODUCT(product32, 2)
PRODUCT(product16, 1)

static void products(const float *slots, idx slot, idx tiles, idx channels, const float *kernels,
                     float *out, idx product, idx outputs, int add) {
    int wide = outputs % (2 * LANES) == 0;
    idx width = wide ? 2 * LANES : LANES;
    for (int s = 0; s < SLOTS; s++)
        for (idx o = 0; o < outputs; o += width) {
            const float *kernel = kernels + (s * outputs + o) * channels;
            for (idx t = 0; t < tiles; t += ROWS)
                for (idx k = 0; k < channels; k += TERMS) {
                    idx terms = channels - k < TERMS ? channels - k : TERMS;
                    (wide ? product32 : product16)(
                        slots + s * slot + t * channels + k, channels, terms, kernel + k * width,
                        out + s * product + t * outputs + o, outputs, add || k > 0);
                }
        }
}

/* A thread's work space; it grows to what the largest filter needs and stays. */
static float *scratch(idx floats) {
    static _Thread_local float *space;
    static _Thread_local idx size;
    if (size < floats) {
        free(space);
        size = (floats + 1023) / 1024 * 1024;
        space = aligned_alloc(4096, (size_t)size * sizeof(float));
        if (space)
            memset(space, 0, (size_t)size * sizeof(float));
        else
            size = 0;
    }
    return space;
}

typedef struct {
    const float *const *frames; /* `count` of [.., row], margins of 1 around them */
    const float *kernels;       /* [count, 36, outputs / panel, channels, panel] */
    const float *bias;          /* [outputs] */
    const float *residual;      /* as `out`, or none */
    float *out;                 /* [made, height, width, outputs] */
    idx count, made, height, width, channels, outputs, row;
} filter;

/* Tile rows [top, top + down) and columns [left, left + across). 0, or -1 for want of memory. */
static int filter_block(const filter *f, idx top, idx left, idx down, idx across) {
    idx channels = f->channels, outputs = f->outputs, count = f->count;
    idx tiles = (down * across + ROWS - 1) / ROWS * ROWS;
    idx rows = TALL * down + 2, line = (BROAD * across + 2) * channels;
    idx out_line = BROAD * across * outputs;
    idx slot = tiles * channels + APART, product = tiles * outputs + APART;
    idx over_time = f->made > 1 ? rows * line + APART : 0, plane = TALL * down * out_line + APART;
    float *split = scratch(count * over_time + SLOTS * (slot + product) + count * plane);
    if (!split) return -1;
    float *slots = split + count * over_time, *prods = slots + SLOTS * slot;
    float *planes = prods + SLOTS * product;

    const float *from[FRAMES];
    idx row = f->row;
    for (idx k = 0; k < count; k++) from[k] = f->frames[k] + TALL * top * row + BROAD * left * channels;
    if (f->made > 1) {
        split_frames(from, row, split, over_time, (int)count, rows, line);
        for (idx k = 0; k < count; k++) from[k] = split + k * over_time;
        row = line;
    }
    for (idx k = 0; k < count; k++) {
        for (idx i = 0; i < down; i++)
            for (idx j = 0; j < across; j++)
                split_tile(from[k] + TALL * i * row + BROAD * j * channels, row,
                           slots + (i * across + j) * channels, slot, channels);
        /* a single frame is the plain sum over its three taps */
        int add = f->made == 1 && k > 0;
        products(slots, slot, tiles, channels, f->kernels + k * SLOTS * channels * outputs, prods,
                 product, outputs, add);
        if (f->made == 1 && k < count - 1) continue;
        float *to = planes + (f->made == 1 ? 0 : k * plane);
        for (idx i = 0; i < down; i++)
            for (idx j = 0; j < across; j++)
                merge_tile(prods + (i * across + j) * outputs, product,
                           to + TALL * i * out_line + BROAD * j * outputs, out_line, outputs);
    }
    idx last_row = TALL * (top + down), last_column = BROAD * (left + across);
    if (last_row > f->height) last_row = f->height;
    if (last_column > f->width) last_column = f->width;
    for (idx y = TALL * top; y < last_row; y++)
        for (idx x = BROAD * left; x < last_column; x++) {
            const float *at = planes + (y - TALL * top) * out_line + (x - BROAD * left) * outputs;
            for (idx c = 0; c < outputs; c += LANES) {
                v16 m[FRAMES], made[FRAMES - 2], bias = load(f->bias + c);
                for (idx k = 0; k < (f->made == 1 ? 1 : count); k++) m[k] = load(at + k * plane + c);
                if (f->made == FRAMES - 2)
                    merge4(m, made);
                else if (f->made == 2)
                    merge2(m, made);
                else
                    made[0] = m[0];
                for (idx k = 0; k < f->made; k++) {
                    idx place = ((k * f->height + y) * f->width + x) * outputs + c;
                    v16 sum = made[k] + bias;
                    if (f->residual) sum += load(f->residual + place);
                    store(f->out + place, sum);
                }
            }
        }
    return 0;
}

int visavis_filter(const float *const *frames, const float *kernels, const float *bias,
                   const float *residual, float *out, idx count, idx made, idx height, idx width,
                   idx channels, idx outputs, idx row, int threads) {
    filter f = {frames, kernels,  bias,    residual, out, count,
                made,   height, width, channels, outputs, row};
    idx down = (height + TALL - 1) / TALL, across = (width + BROAD - 1) / BROAD;
    idx most = down * across / threads;
    most = most < ROWS ? ROWS : most > TILES ? TILES : most;
    idx columns = across < most ? across : most, rows = most / columns;
    idx row_blocks = (down + rows - 1) / rows, blocks = (across + columns - 1) / columns;
    int failed = 0;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads) reduction(| : failed)
    for (idx i = 0; i < row_blocks; i++)
        for (idx j = 0; j < blocks; j++) {
            idx top = i * rows, left = j * columns;
            failed |= filter_block(&f, top, left, down - top < rows ? down - top : rows,
                                   across - left < columns ? across - left : columns);
        }
    return failed;
}

typedef int32_t i16 __attribute__((vector_size(64), aligned(4), may_alias));

static inline v16 choose(i16 mask, v16 yes, v16 no) {
    return (v16)(((i16)yes & mask) | ((i16)no & ~mask));
}

/* exp(x), x at most 0, to a few units in the last place; NaN stays. */
static inline __attribute__((always_inline)) v16 quick_exp(v16 x) {
    v16 least = (v16){0} - 87.0f;
    x = choose(x < least, least, x);
    i16 whole = __builtin_convertvector(x * 1.44269504f - 0.5f, i16);
    v16 times = __builtin_convertvector(whole, v16);
    v16 rest = (x - times * 0.693359375f) + times * 2.12194440e-4f;
    /* the series of exp over [-ln 2 / 2, ln 2 / 2], whose next term is 5e-9 of the sum */
    v16 p = (v16){0} + 1.0f / 5040;
    p = p * rest + 1.0f / 720;
    p = p * rest + 1.0f / 120;
    p = p * rest + 1.0f / 24;
    p = p * rest + 1.0f / 6;
    p = p * rest + 0.5f;
    p = p * rest * rest + rest + 1.0f;
    return p * (v16)((whole + 127) << 23);
}

static void norm_pixel(const float *x, float *y, const float *gamma, float least, int silu,
                       idx channels) {
    v16 squares = {0};
    for (idx c = 0; c < channels; c += LANES) squares += load(x + c) * load(x + c);
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += squares[i];
    float norm = sqrtf(sum), scale = 1 / (norm < least ? least : norm);
    for (idx c = 0; c < channels; c += LANES) {
        v16 value = load(x + c) * scale * load(gamma + c);
        if (silu) {
            i16 positive = value > 0;
            v16 power = quick_exp(choose(positive, -value, value));
            value *= choose(positive, (v16){0} + 1, power) / (1 + power);
        }
        store(y + c, value);
    }
}

/* Rows [n0, n1] of `width` pixels: x / max(|x|, least) * gamma, then x * sigmoid(x) if `silu`. */
void visavis_pixel_norm(const float *in, float *out, const float *gamma, float least, int silu,
                        idx n0, idx n1, idx width, idx channels, idx in0, idx in1, idx out0,
                        idx out1, int threads) {
#pragma omp parallel for collapse(2) num_threads(threads) if (n0 * n1 * width * channels >= 8192)
    for (idx i = 0; i < n0; i++)
        for (idx j = 0; j < n1; j++)
            for (idx w = 0; w < width; w++)
                norm_pixel(in + i * in0 + j * in1 + w * channels,
                           out + i * out0 + j * out1 + w * channels, gamma, least, silu, channels);
}
