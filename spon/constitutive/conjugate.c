/* SPDX-License-Identifier: MIT
 *
 * The conjugate of a law's energy, max over e of stress.e - energy(e): `spon.constitutive.duality.conjugate` (after lanes.h and the
 * law's own functions law_energy, law_stress and law_tangent, which are made of its programs).
 *
 * Newton's method for stress = law_stress(e) with step halving, in all lanes until the last is done. D strain components
 * are a constant of the compilation.
 */

typedef struct {
  const REAL *energy, *stress, *tangent;
} constants;

static inline void square(lanes x[D], lanes out)
{
  EACH out[b] = 0;
  for (int i = 0; i < D; ++i) EACH out[b] += x[i][b] * x[i][b];
}

/* x := matrix^-1 x by elimination; a positive definite matrix needs no pivots. The matrix is used up. */
static inline void solve(lanes matrix[D * D], lanes x[D])
{
  for (int k = 0; k < D; ++k)
    for (int i = k + 1; i < D; ++i) {
      lanes factor;
      EACH factor[b] = matrix[i * D + k][b] / matrix[k * D + k][b];
      EACH x[i][b] -= factor[b] * x[k][b];
      for (int j = k + 1; j < D; ++j) EACH matrix[i * D + j][b] -= factor[b] * matrix[k * D + j][b];
    }
  for (int k = D - 1; k >= 0; --k) {
    for (int j = k + 1; j < D; ++j) EACH x[k][b] -= matrix[k * D + j][b] * x[j][b];
    EACH x[k][b] /= matrix[k * D + k][b];
  }
}

/* The squared norm of what is missing of the stress at e. */
static inline void missing_at(const constants *law, lanes e[D], lanes stress[D], lanes missing[D], lanes size)
{
  law_stress(law->stress, e, missing);
  for (int i = 0; i < D; ++i) EACH missing[i][b] = stress[i][b] - missing[i][b];
  square(missing, size);
}

static void block(const constants *law, lanes stress[D], lanes e[D], lanes value, REAL resolved2, REAL least2,
                  int iterations)
{
  lanes enough, missing[D], size;
  square(stress, enough);
  EACH enough[b] = enough[b] * resolved2 + least2;
  missing_at(law, e, stress, missing, size);
  for (int iteration = 0; iteration < iterations; ++iteration) {
    int open[LANES], any = 0;
    EACH open[b] = size[b] > enough[b] && size[b] < INFINITY;
    EACH any |= open[b];
    if (!any) break;

    lanes step[D], matrix[D * D], trial[D], rest[D], left, length;
    law_tangent(law->tangent, e, matrix);
    for (int i = 0; i < D; ++i) EACH step[i][b] = missing[i][b];
    solve(matrix, step);
    EACH length[b] = 1;
    /* The direction shortens what is missing, of whatever length the step has to be. */
    for (int halving = 0; halving <= 20; ++halving) {
      for (int i = 0; i < D; ++i) EACH trial[i][b] = e[i][b] + length[b] * step[i][b];
      missing_at(law, trial, stress, rest, left);
      any = 0;
      EACH {
        const int worse = open[b] && !(left[b] < size[b]);
        length[b] *= worse ? (REAL)0.5 : 1;
        any |= worse;
      }
      if (!any) break;
    }
    /* What no step makes better is at the limit of rounding, or beyond what the law carries. */
    for (int i = 0; i < D; ++i) EACH {
      const int better = open[b] && left[b] < size[b];
      e[i][b] = better ? trial[i][b] : e[i][b];
      missing[i][b] = better ? rest[i][b] : missing[i][b];
    }
    EACH size[b] = !open[b] ? size[b] : left[b] < size[b] ? left[b] : INFINITY;
  }
  lanes energy[1];
  law_energy(law->energy, e, energy);
  EACH value[b] = -energy[0][b];
  for (int i = 0; i < D; ++i) EACH value[b] += stress[i][b] * e[i][b];
  /* What is not a maximum is no value of the conjugate. */
  EACH value[b] = size[b] <= enough[b] ? value[b] : INFINITY;
}

void conjugates(long n, const constants *law, const REAL *stress, const REAL *start, REAL *value, REAL resolved,
                REAL least, int iterations, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long first = 0; first < n; first += LANES) {
    lanes s[D], e[D], v;
    const int count = n - first < LANES ? (int)(n - first) : LANES;
    for (int i = 0; i < D; ++i) EACH {
      const long place = (first + (b < count ? b : 0)) * D + i;
      s[i][b] = stress[place];
      e[i][b] = start[place];
    }
    block(law, s, e, v, resolved * resolved, least * least, iterations);
    for (int b = 0; b < count; ++b) value[first + b] = v[b];
  }
}
