/* SPDX-License-Identifier: MIT
 *
 * Stress and tangent of a `spon.equino.networks.Potential` in one pass, by the formulas of its `forward`. It follows
 * lanes.h and layers.h.
 *
 * D strain components, K norms and two layers of WIDTH are compile-time constants.
 */
#define PAIRS (D * (D + 1) / 2)

typedef struct {
  REAL at_zero_strain[D]; /* the gradient at zero strain, see `set_at_zero_strain` */
  REAL stiffness[D][D], half_range[D], scale, smoothing2;
  REAL a1[IN][WIDTH], c1[WIDTH], a2[WIDTH][WIDTH], c2[WIDTH], a3[WIDTH];
  REAL metrics[SOME(K)][D][D];
} network;

/* h_il += sum_j factor_j x_ij x_lj of symmetric h, row by row below the diagonal. */
static inline void add_squares(lanes h[PAIRS], const int count, lanes *restrict factor, lanes (*x)[count])
{
#define AT(x) (*(pack *)&(x)[b])
  for (int b = 0; b < LANES; b += PACK) {
    pack sum[PAIRS];
    for (int e = 0; e < PAIRS; ++e) sum[e] = AT(h[e]);
    for (int j = 0; j < count; ++j)
      for (int i = 0, e = 0; i < D; ++i) {
        const pack part = AT(factor[j]) * AT(x[i][j]);
        for (int l = 0; l <= i; ++l, ++e) sum[e] += part * AT(x[l][j]);
      }
    for (int e = 0; e < PAIRS; ++e) AT(h[e]) = sum[e];
  }
#undef AT
}

/* The gradient of g at a block of points, and the stress and tangent unless `stress` is null. */
static inline void derivatives(const network *restrict p, lanes strain[D], lanes gradient[D], lanes stress[D],
                               lanes tangent[D * D])
{
  /* The strain in units of its range, its norms, and their gradients. */
  lanes x[IN], norm_gradient[D][SOME(K)], curved[SOME(K)];
  for (int i = 0; i < D; ++i) EACH x[i][b] = strain[i][b] / p->half_range[i];
  norms_of(p->metrics, p->smoothing2, x, x + D, norm_gradient);

  /* Forward through both layers. */
  lanes one[WIDTH], two[WIDTH];
  product(p->a1[0], WIDTH, 1, IN, WIDTH, p->c1, LANES, x[0], one[0]);
  for (int j = 0; j < WIDTH; ++j) EACH one[j][b] = tanh_of(one[j][b]);
  product(p->a2[0], WIDTH, 1, WIDTH, WIDTH, p->c2, LANES, one[0], two[0]);
  for (int m = 0; m < WIDTH; ++m) EACH two[m][b] = tanh_of(two[m][b]);

  /* Backward: derivatives of g by the inputs of each layer, and these times the second derivatives of its activation. */
  lanes bend_one[WIDTH], bend_two[WIDTH], slope_one[WIDTH], back[WIDTH], outer[IN];
  for (int m = 0; m < WIDTH; ++m) EACH {
    const REAL d = p->a3[m] * (1 - two[m][b] * two[m][b]);
    bend_two[m][b] = -2 * two[m][b] * d;
    two[m][b] = d;
  }
  product(p->a2[0], 1, WIDTH, WIDTH, WIDTH, 0, LANES, two[0], back[0]);
  for (int j = 0; j < WIDTH; ++j) EACH {
    slope_one[j][b] = 1 - one[j][b] * one[j][b];
    back[j][b] *= slope_one[j][b];
    bend_one[j][b] = -2 * one[j][b] * back[j][b];
  }
  product(p->a1[0], 1, WIDTH, WIDTH, IN, 0, LANES, back[0], outer[0]);

  /* The gradient; then the parts of the Hessian: curvature of the norms, of the first layer and of the second, each along
   * the derivatives of its inputs by the strain components. */
  for (int i = 0; i < D; ++i) {
    lanes sum;
    EACH sum[b] = outer[i][b] - p->at_zero_strain[i];
    for (int k = 0; k < K; ++k) EACH sum[b] += norm_gradient[i][k][b] * outer[D + k][b];
    EACH gradient[i][b] = sum[b];
  }
  if (!stress) return;
  lanes h[PAIRS], first[D][WIDTH], second[D][WIDTH];
  for (int e = 0; e < PAIRS; ++e) EACH h[e][b] = 0;
  for (int k = 0; k < K; ++k) {
    EACH curved[k][b] = -outer[D + k][b] / x[D + k][b];
    for (int i = 0, e = 0; i < D; ++i)
      for (int l = 0; l <= i; ++l, ++e) EACH h[e][b] -= curved[k][b] * p->metrics[k][i][l];
  }
  if (K > 0) add_squares(h, K, curved, norm_gradient);
  for (int i = 0; i < D; ++i) product(p->a1[D], WIDTH, 1, K, WIDTH, p->a1[i], LANES, norm_gradient[i][0], first[i][0]);
  add_squares(h, WIDTH, bend_one, first);
  for (int i = 0; i < D; ++i) {
    for (int j = 0; j < WIDTH; ++j) EACH first[i][j][b] *= slope_one[j][b];
    product(p->a2[0], WIDTH, 1, WIDTH, WIDTH, 0, LANES, first[i][0], second[i][0]);
  }
  add_squares(h, WIDTH, bend_two, second);

  for (int i = 0, e = 0; i < D; ++i) {
    const REAL unit = p->scale / p->half_range[i];
    EACH stress[i][b] = unit * gradient[i][b];
    for (int l = 0; l < D; ++l) EACH stress[i][b] += p->stiffness[i][l] * strain[l][b];
    for (int l = 0; l <= i; ++l, ++e)
      EACH tangent[i * D + l][b] = tangent[l * D + i][b] = p->stiffness[i][l] + h[e][b] * (unit / p->half_range[l]);
  }
}

static void block(const network *p, lanes strain[D], lanes stress[D], lanes tangent[D * D])
{
  lanes gradient[D];
  derivatives(p, strain, gradient, stress, tangent);
}

/* By the same operations as at other strains, so that the stress at zero strain is exactly zero. */
void set_at_zero_strain(network *p)
{
  lanes strain[D], gradient[D];
  for (int i = 0; i < D; ++i) {
    p->at_zero_strain[i] = 0;
    EACH strain[i][b] = 0;
  }
  derivatives(p, strain, gradient, 0, 0);
  for (int i = 0; i < D; ++i) p->at_zero_strain[i] = gradient[i][0];
}
