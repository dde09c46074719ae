/* SPDX-License-Identifier: MIT
 *
 * The conjugate energy of a law, max over e of stress.e - energy(e), the formulas of
 * `spon.constitutive.duality.conjugate`. It follows lanes.h and the functions law_energy, law_stress and law_tangent,
 * which are generated from the law's programs.
 *
 * Newton's method for stress = law_stress(e) with step halving, in all lanes until the last is solved. D, the number of
 * strain components, is a compile-time constant.
 */

typedef struct {
  const REAL *energy, *stress, *tangent;
} constants;

static inline void square(lanes x[D], lanes out)
{
  EACH out[b] = 0;
  for (int i = 0; i < D; ++i) EACH out[b] += x[i][b] * x[i][b];
}

/* x := matrix^-1 x by elimination, which overwrites the matrix; a positive definite one needs no pivots. */
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

/* The residual of the stress at e, and its squared norm. */
static inline void residual_at(const constants *law, lanes e[D], lanes stress[D], lanes residual[D], lanes size)
{
  law_stress(law->stress, e, residual);
  for (int i = 0; i < D; ++i) EACH residual[i][b] = stress[i][b] - residual[i][b];
  square(residual, size);
}

static void block(const constants *law, lanes stress[D], lanes e[D], lanes value, REAL resolved2, REAL least2,
                  int iterations)
{
  lanes enough, residual[D], size;
  square(stress, enough);
  EACH enough[b] = enough[b] * resolved2 + least2;
  residual_at(law, e, stress, residual, size);
  for (int iteration = 0; iteration < iterations; ++iteration) {
    int active[LANES], any = 0;
    EACH active[b] = size[b] > enough[b] && size[b] < INFINITY;
    EACH any |= active[b];
    if (!any) break;

    lanes step[D], matrix[D * D], trial[D], after[D], size_after, length;
    law_tangent(law->tangent, e, matrix);
    for (int i = 0; i < D; ++i) EACH step[i][b] = residual[i][b];
    solve(matrix, step);
    EACH length[b] = 1;
    /* Newton's direction decreases the norm of the residual for short enough steps. */
    for (int halving = 0; halving <= 20; ++halving) {
      for (int i = 0; i < D; ++i) EACH trial[i][b] = e[i][b] + length[b] * step[i][b];
      residual_at(law, trial, stress, after, size_after);
      any = 0;
      EACH {
        const int worse = active[b] && !(size_after[b] < size[b]);
        length[b] *= worse ? (REAL)0.5 : 1;
        any |= worse;
      }
      if (!any) break;
    }
    /* Where no step decreases it, the residual is rounding, or no strain has the stress. */
    for (int i = 0; i < D; ++i) EACH {
      const int better = active[b] && size_after[b] < size[b];
      e[i][b] = better ? trial[i][b] : e[i][b];
      residual[i][b] = better ? after[i][b] : residual[i][b];
    }
    EACH size[b] = !active[b] ? size[b] : size_after[b] < size[b] ? size_after[b] : INFINITY;
  }
  lanes energy[1];
  law_energy(law->energy, e, energy);
  EACH value[b] = -energy[0][b];
  for (int i = 0; i < D; ++i) EACH value[b] += stress[i][b] * e[i][b];
  /* Where the residual is not zero there is no maximum, and the conjugate is infinite. */
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
      const long at = (first + (b < count ? b : 0)) * D + i;
      s[i][b] = stress[at];
      e[i][b] = start[at];
    }
    block(law, s, e, v, resolved * resolved, least * least, iterations);
    for (int b = 0; b < count; ++b) value[first + b] = v[b];
  }
}
