/* SPDX-License-Identifier: MIT
 *
 * Stress and tangent of a `spon.equino.networks.Branch` that predicts coefficients of stress modes, in one pass, by the
 * formulas of its `with_tangent`. It follows lanes.h and layers.h.
 *
 * D strain components, K norms and the hidden layers are compile-time constants: LAYERS is a sequence of
 * LAYER(in, out), CHAIN the number of their parameters, LAST the width of the last and MOST the greatest width, SWISH
 * whether their activation is swish or tanh. The last matrix contains the modes' means.
 */

typedef struct {
  REAL at_zero_strain[D]; /* subtracted from the stress: by `set_at_zero_strain`, or minus a constant */
  REAL through_zero, half_range[D], smoothing2;
  REAL linear[D][D], last[LAST][D]; /* from the strain and from the last layer to the stress */
  REAL chain[CHAIN]; /* matrix (in, out) and offsets (out,) of each layer */
  REAL metrics[SOME(K)][D][D];
} network;

/* A row: the values at the points, then their derivatives by each strain component. */
#define COLUMNS ((1 + D) * LANES)
typedef REAL row[COLUMNS];

static inline __attribute__((always_inline)) const REAL *layer(
    const REAL *restrict a, const int in, const int out, row *restrict x, row *restrict y)
{
  product(a, out, 1, in, out, 0, COLUMNS, x[0], y[0]);
  const REAL *c = a + in * out;
  for (int m = 0; m < out; ++m) {
    lanes slope;
    EACH {
      const REAL z = y[m][b] + c[m];
#if SWISH
      const REAL s = 1 / (1 + exponential(-z));
      y[m][b] = z * s;
      slope[b] = s + z * s * (1 - s);
#else
      const REAL value = tanh_of(z);
      y[m][b] = value;
      slope[b] = 1 - value * value;
#endif
    }
    for (int i = 1; i <= D; ++i) EACH y[m][i * LANES + b] *= slope[b];
  }
  return c + out;
}

static void block(const network *restrict p, lanes strain[D], lanes stress[D], lanes tangent[D * D])
{
  row rows[2][MOST], out[D], *x = rows[0], *y = rows[1];
  lanes e[D], norm[SOME(K)], norm_gradient[D][SOME(K)];
  for (int i = 0; i < D; ++i) EACH e[i][b] = strain[i][b] / p->half_range[i];
  norms_of(p->metrics, p->smoothing2, e, norm, norm_gradient);
  for (int j = 0; j < IN; ++j) {
    EACH x[j][b] = j < D ? e[j][b] : norm[j - D][b];
    for (int i = 0; i < D; ++i)
      EACH x[j][(1 + i) * LANES + b] = (j < D ? (REAL)(i == j) : norm_gradient[i][j - D][b]) / p->half_range[i];
  }
  const REAL *a = p->chain;
#define LAYER(in, out)         \
  a = layer(a, in, out, x, y); \
  { row *other = x; x = y; y = other; }
  LAYERS
#undef LAYER
  product(p->last[0], D, 1, LAST, D, 0, COLUMNS, x[0], out[0]);
  for (int i = 0; i < D; ++i) {
    EACH stress[i][b] = out[i][b] - p->at_zero_strain[i];
    for (int l = 0; l < D; ++l) {
      EACH stress[i][b] += p->linear[i][l] * strain[l][b];
      EACH tangent[i * D + l][b] = p->linear[i][l] + out[i][(1 + l) * LANES + b];
    }
  }
}

/* By the same operations as at other strains, so that the stress at zero strain is exactly zero. */
void set_at_zero_strain(network *p)
{
  lanes e[D], s[D], t[D * D];
  if (!p->through_zero) return;
  for (int i = 0; i < D; ++i) {
    p->at_zero_strain[i] = 0;
    EACH e[i][b] = 0;
  }
  block(p, e, s, t);
  for (int i = 0; i < D; ++i) p->at_zero_strain[i] = s[i][0];
}
