/* SPDX-License-Identifier: MIT
 *
 * Objectivity at finite strain, as in spon/constitutive/measure.py, point by point: the coordinates of a displacement
 * gradient H = F - I, which are the Mandel components of U - I, and the first Piola-Kirchhoff stress and its derivative
 * of T = dW/dU and dT/dU. DIM is the space dimension, D the number of coordinates.
 */
#include <math.h>

#define FULL (DIM * DIM)
#define ROOTS 12

typedef struct { REAL f[DIM][DIM], u[DIM][DIM]; } polar;

#if DIM == 2
static const int pair[D][2] = {{0, 0}, {1, 1}, {0, 1}};
#else
static const int pair[D][2] = {{0, 0}, {1, 1}, {2, 2}, {1, 2}, {0, 2}, {0, 1}};
#endif
#define HALF 0.70710678118654752440 /* of a shear in a Mandel component */

static REAL determinant(REAL a[DIM][DIM])
{
#if DIM == 2
  return a[0][0] * a[1][1] - a[0][1] * a[1][0];
#else
  return a[0][0] * (a[1][1] * a[2][2] - a[1][2] * a[2][1]) + a[0][1] * (a[1][2] * a[2][0] - a[1][0] * a[2][2]) +
         a[0][2] * (a[1][0] * a[2][1] - a[1][1] * a[2][0]);
#endif
}

static void inverse(REAL a[DIM][DIM], REAL b[DIM][DIM])
{
  const REAL scale = 1 / determinant(a);
#if DIM == 2
  const REAL c[DIM][DIM] = {{a[1][1], -a[0][1]}, {-a[1][0], a[0][0]}};
  for (int i = 0; i < DIM; ++i)
    for (int j = 0; j < DIM; ++j) b[i][j] = scale * c[i][j];
#else
  for (int i = 0; i < DIM; ++i)
    for (int j = 0; j < DIM; ++j) {
      const int i1 = (i + 1) % 3, i2 = (i + 2) % 3, j1 = (j + 1) % 3, j2 = (j + 2) % 3;
      b[j][i] = scale * (a[i1][j1] * a[i2][j2] - a[i1][j2] * a[i2][j1]);
    }
#endif
}

/* The symmetric square root of a = I + C - I: in closed form in two dimensions, by Denman and Beavers in three. */
static void root(REAL a[DIM][DIM], REAL y[DIM][DIM])
{
#if DIM == 2
  const REAL d = determinant(a), j = d > 0 ? sqrt(d) : 0, t = 1 / sqrt(a[0][0] + a[1][1] + 2 * j);
  for (int i = 0; i < DIM; ++i)
    for (int k = 0; k < DIM; ++k) y[i][k] = t * (a[i][k] + (i == k ? j : 0));
#else
  REAL z[DIM][DIM], iy[DIM][DIM], iz[DIM][DIM];
  for (int i = 0; i < DIM; ++i)
    for (int k = 0; k < DIM; ++k) y[i][k] = a[i][k], z[i][k] = i == k;
  for (int n = 0; n < ROOTS; ++n) {
    REAL change = 0;
    inverse(y, iy), inverse(z, iz);
    for (int i = 0; i < DIM; ++i)
      for (int k = 0; k < DIM; ++k) {
        const REAL step = (iz[i][k] - y[i][k]) / 2;
        y[i][k] += step, z[i][k] = (z[i][k] + iy[i][k]) / 2;
        change += step * step;
      }
    if (change <= 1e-30 * (y[0][0] * y[0][0] + y[1][1] * y[1][1] + y[2][2] * y[2][2])) break;
  }
#endif
}

/* F, U and the coordinates e[i * stride] of a row H; NaN where det F <= 0. */
static void decompose(const REAL *h, polar *p, REAL *e, long stride)
{
  REAL x[DIM][DIM], a[DIM][DIM], v[DIM][DIM];
  for (int i = 0; i < DIM; ++i)
    for (int k = 0; k < DIM; ++k) {
      REAL sum = h[i * DIM + k] + h[k * DIM + i];
      for (int j = 0; j < DIM; ++j) sum += h[j * DIM + i] * h[j * DIM + k];
      x[i][k] = sum, a[i][k] = sum + (i == k), p->f[i][k] = h[i * DIM + k] + (i == k);
    }
  root(a, p->u);
  for (int i = 0; i < DIM; ++i)
    for (int k = 0; k < DIM; ++k) a[i][k] = p->u[i][k] + (i == k);
  inverse(a, v);
  const int good = determinant(p->f) > 0;
  for (int m = 0; m < D; ++m) {
    const int i = pair[m][0], k = pair[m][1];
    REAL one = 0, other = 0;
    for (int j = 0; j < DIM; ++j) one += v[i][j] * x[j][k], other += v[k][j] * x[j][i];
    e[m * stride] = good ? (i == k ? one : HALF * (one + other)) : NAN;
  }
}

/* a B_m for the symmetric tensor B_m of a Mandel component. */
static void times_unit(REAL a[DIM][DIM], int m, REAL b[DIM][DIM])
{
  const int i = pair[m][0], k = pair[m][1];
  for (int r = 0; r < DIM; ++r) {
    for (int c = 0; c < DIM; ++c) b[r][c] = 0;
    if (i == k) b[r][i] = a[r][i];
    else b[r][k] = HALF * a[r][i], b[r][i] = HALF * a[r][k];
  }
}

/* The map X -> (a X + X a) / 2 of symmetric tensors, for symmetric a. */
static void symmetric_map(REAL a[DIM][DIM], REAL map[D][D])
{
  REAL half[D][D];
  for (int m = 0; m < D; ++m) {
    REAL b[DIM][DIM];
    times_unit(a, m, b);
    for (int l = 0; l < D; ++l) {
      const int i = pair[l][0], k = pair[l][1];
      half[l][m] = i == k ? b[i][i] : HALF * (b[i][k] + b[k][i]);
    }
  }
  for (int l = 0; l < D; ++l)
    for (int m = 0; m < D; ++m) map[l][m] = (half[l][m] + half[m][l]) / 2;
}

/* The inverse of a symmetric positive definite matrix, in place. */
static void invert(REAL a[D][D])
{
  for (int k = 0; k < D; ++k) {
    const REAL pivot = 1 / a[k][k];
    a[k][k] = 1;
    for (int j = 0; j < D; ++j) a[k][j] *= pivot;
    for (int i = 0; i < D; ++i) {
      if (i == k) continue;
      const REAL factor = a[i][k];
      a[i][k] = 0;
      for (int j = 0; j < D; ++j) a[i][j] -= factor * a[k][j];
    }
  }
}

/* P (FULL) and dP/dF (FULL, FULL) of T, s[i * stride], and dT/dU, t[(i * D + j) * stride]. */
static void turn_back(polar *p, const REAL *s, const REAL *t, long stride, REAL *stress, REAL *tangent)
{
  REAL map[D][D], geometric[D][D], work[D][D], moduli[D][D], strains[D][FULL], part[D][FULL], second[D];
  REAL tensor[DIM][DIM];
  symmetric_map(p->u, map);
  invert(map);
  for (int m = 0; m < D; ++m) {
    const int i = pair[m][0], k = pair[m][1];
    second[m] = 0;
    for (int l = 0; l < D; ++l) second[m] += map[m][l] * s[l * stride];
    tensor[i][k] = tensor[k][i] = i == k ? second[m] : HALF * second[m];
    REAL b[DIM][DIM];
    times_unit(p->f, m, b);
    for (int r = 0; r < DIM; ++r)
      for (int c = 0; c < DIM; ++c) strains[m][r * DIM + c] = b[r][c];
  }
  symmetric_map(tensor, geometric);
  for (int l = 0; l < D; ++l)
    for (int m = 0; m < D; ++m) {
      work[l][m] = 0;
      for (int j = 0; j < D; ++j) work[l][m] += map[l][j] * (t[(j * D + m) * stride] - geometric[j][m]);
    }
  for (int l = 0; l < D; ++l)
    for (int m = 0; m < D; ++m) {
      moduli[l][m] = 0;
      for (int j = 0; j < D; ++j) moduli[l][m] += work[l][j] * map[j][m];
    }
  for (int l = 0; l < D; ++l)
    for (int c = 0; c < FULL; ++c) {
      part[l][c] = 0;
      for (int m = 0; m < D; ++m) part[l][c] += moduli[l][m] * strains[m][c];
    }
  for (int r = 0; r < FULL; ++r) {
    stress[r] = 0;
    for (int m = 0; m < D; ++m) stress[r] += strains[m][r] * second[m];
    for (int c = 0; c < FULL; ++c) {
      REAL sum = r / DIM == c / DIM ? tensor[r % DIM][c % DIM] : 0;
      for (int m = 0; m < D; ++m) sum += strains[m][r] * part[m][c];
      tangent[r * FULL + c] = sum;
    }
  }
}
