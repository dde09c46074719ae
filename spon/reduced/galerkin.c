/* SPDX-License-Identifier: MIT
 *
 * RVEs in R modes: Newton's method minimises the energy, as `spon.ModeNetwork.respond` does. To be compiled after
 * lanes.h and the functions law<k> of the laws, from strain to stress and tangent, which the constant LAWS lists.
 *
 * Blocks of LANES hold points of one phase; points of zero weight fill the last block of a phase. Phases with constant
 * tangents have no blocks: their stiffness is in the matrix `constant`. D strain components and R modes are constants
 * of the compilation.
 */
#include <float.h>

#define EPSILON DBL_EPSILON
#define F (D + R)
#define PAIRS (F * (F + 1) / 2)

/* Lanes as one value in a register; unaligned, and may alias numbers. */
typedef REAL pack __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

typedef void (*law)(const REAL *constants, lanes *strain, lanes *response);

static const law laws[] = {LAWS};

typedef struct {
  REAL force[F], stiffness[PAIRS];
} sums;

/* Means of force and stiffness (row by row below the diagonal) over an RVE, at strain and coefficients x. */
static void visit(const REAL *const *numbers, int blocks, const int *phase, const REAL *modes, const REAL *weights,
                  const REAL *constant, const REAL x[F], sums *out)
{
  pack force[F] = {{0}}, stiffness[PAIRS] = {{0}};
  for (int block = 0; block < blocks; ++block) {
    const pack *mode = (const pack *)modes + (long)block * D * R, w = ((const pack *)weights)[block];
    const int k = phase[block];
    lanes strain[D], response[D + D * D];
    pack stress[D], tangent[D * D];
    for (int i = 0; i < D; ++i) {
      pack sum = mode[i * R] * x[D] + x[i];
      for (int j = 1; j < R; ++j) sum += mode[i * R + j] * x[D + j];
      *(pack *)strain[i] = sum;
    }
    laws[k](numbers[k], strain, response);
    for (int i = 0; i < D; ++i) force[i] += stress[i] = *(pack *)response[i] * w;
    for (int i = 0; i < D * D; ++i) tangent[i] = *(pack *)response[D + i] * w;
    for (int i = 0, e = 0; i < D; ++i)
      for (int l = 0; l <= i; ++l, ++e) stiffness[e] += tangent[i * D + l];
    for (int j = 0; j < R; ++j) {
      pack *row = stiffness + (D + j) * (D + j + 1) / 2, moved[D];
      for (int i = 0; i < D; ++i) {
        force[D + j] += stress[i] * mode[i * R + j];
        moved[i] = tangent[i * D] * mode[j];
        for (int l = 1; l < D; ++l) moved[i] += tangent[i * D + l] * mode[l * R + j];
        row[i] += moved[i];
      }
      for (int l = 0; l <= j; ++l)
        for (int i = 0; i < D; ++i) row[D + l] += moved[i] * mode[i * R + l];
    }
  }
  for (int j = 0; j < F; ++j) {
    out->force[j] = 0;
    EACH out->force[j] += force[j][b];
  }
  for (int j = 0, e = 0; j < F; ++j)
    for (int l = 0; l <= j; ++l, ++e) {
      REAL sum = constant[j * F + l];
      EACH sum += stiffness[e][b];
      out->stiffness[e] = sum;
    }
  for (int j = 0; j < F; ++j) {
    REAL sum = 0;
    for (int l = 0; l < F; ++l) sum += constant[j * F + l] * x[l];
    out->force[j] += sum;
  }
}

/* Columns (R, count) := A^-1 columns with the lower triangle of A (R, R), which is overwritten; 0 if A is not positive
 * definite. */
static int solve(REAL a[R][R], REAL *columns, int count)
{
  for (int k = 0; k < R; ++k) {
    for (int l = 0; l < k; ++l) a[k][k] -= a[k][l] * a[k][l];
    if (!(a[k][k] > 0)) return 0;
    a[k][k] = sqrt(a[k][k]);
    for (int i = k + 1; i < R; ++i) {
      for (int l = 0; l < k; ++l) a[i][k] -= a[i][l] * a[k][l];
      a[i][k] /= a[k][k];
    }
  }
  for (int c = 0; c < count; ++c) {
    for (int i = 0; i < R; ++i) {
      for (int l = 0; l < i; ++l) columns[i * count + c] -= a[i][l] * columns[l * count + c];
      columns[i * count + c] /= a[i][i];
    }
    for (int i = R - 1; i >= 0; --i) {
      for (int l = i + 1; l < R; ++l) columns[i * count + c] -= a[l][i] * columns[l * count + c];
      columns[i * count + c] /= a[i][i];
    }
  }
  return 1;
}

/* Steps are halved down to this length. */
#define SHORTEST 1e-3

static REAL at(const sums *s, int j, int l) { return s->stiffness[j >= l ? j * (j + 1) / 2 + l : l * (l + 1) / 2 + j]; }

/* n points with RVEs `rve`, at strains (n, D), from initial coefficients (n, R) to those of least energy; writes stress
 * (n, D), tangent (n, D, D), sensitivities of the coefficients (n, R, D), and the number of iterations, or -1 without
 * convergence. */
void respond(long n, const REAL *const *numbers, int blocks, const long *rve, const int *phase, const REAL *modes,
             const REAL *weights, const REAL *constant, const REAL *strain, REAL *coefficients, REAL *stress,
             REAL *tangent, REAL *sensitivities, int *iterations, REAL tolerance, int most, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (long p = 0; p < n; ++p) {
    const long c = rve[p];
    const int *its_phase = phase + c * blocks;
    int used = 0; /* blocks in use come first */
    while (used < blocks && its_phase[used] >= 0) ++used;
    REAL x[F], step[R], last = INFINITY, length = 1;
    for (int i = 0; i < D; ++i) x[i] = strain[p * D + i];
    for (int j = 0; j < R; ++j) x[D + j] = coefficients[p * R + j];
    sums now;
    iterations[p] = -1;
    for (int iteration = 0; iteration <= most; ++iteration) {
      visit(numbers, used, its_phase, modes + c * blocks * D * R * LANES, weights + c * blocks * LANES,
            constant + c * F * F, x, &now);
      /* Half the step where it has increased the residual, or where the law has no value. */
      REAL residual = 0;
      for (int j = 0; j < R; ++j) residual += now.force[D + j] * now.force[D + j];
      if (!(residual <= last) && length > SHORTEST) {
        if (!(last < INFINITY)) break; /* there is no step to halve */
        length /= 2;
        for (int j = 0; j < R; ++j) x[D + j] -= length * step[j];
        continue;
      }
      last = residual;
      length = 1;
      /* The gain of a step, and the sensitivities of the minimum to the strain, from one factor. */
      REAL a[R][R], columns[R][D + 1], trace = 0, gain = 0, work = 0, shift = 10 * EPSILON;
      for (int j = 0; j < R; ++j) trace += fabs(at(&now, D + j, D + j));
      int solved = 0, shifted = 0;
      while (!solved && shift < 100) {
        for (int j = 0; j < R; ++j) {
          for (int l = 0; l <= j; ++l) a[j][l] = at(&now, D + j, D + l);
          a[j][j] += shift * trace;
          for (int i = 0; i < D; ++i) columns[j][i] = -at(&now, D + j, i);
          columns[j][D] = -now.force[D + j];
        }
        solved = solve(a, &columns[0][0], D + 1);
        /* Away from a minimum of an energy that is not convex: a larger diagonal makes a direction of descent. */
        if (!solved) shifted = 1, shift = shift < 1e-3 ? 1e-3 : 4 * shift;
      }
      if (!solved) break;
      for (int j = 0; j < R; ++j) gain -= now.force[D + j] * columns[j][D];
      for (int j = 0; j < F; ++j) work += now.force[j] * x[j];
      /* The error of the energy is quadratic in the step, and the last step squares it again. */
      if (!shifted && gain >= 0 && gain <= tolerance * tolerance * work + EPSILON * EPSILON * trace) {
        for (int i = 0; i < D; ++i) {
          REAL sum = now.force[i];
          for (int j = 0; j < R; ++j) sum += at(&now, D + j, i) * columns[j][D];
          stress[p * D + i] = sum;
          for (int l = 0; l < D; ++l) {
            REAL t = at(&now, i, l);
            for (int j = 0; j < R; ++j) t += (at(&now, D + j, i) * columns[j][l] + at(&now, D + j, l) * columns[j][i]) / 2;
            tangent[(p * D + i) * D + l] = t;
          }
        }
        for (int j = 0; j < R; ++j) {
          coefficients[p * R + j] = x[D + j] + columns[j][D];
          for (int i = 0; i < D; ++i) sensitivities[(p * R + j) * D + i] = columns[j][i];
        }
        iterations[p] = iteration;
        break;
      }
      for (int j = 0; j < R; ++j) x[D + j] += step[j] = columns[j][D];
    }
  }
}
