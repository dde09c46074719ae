/* SPDX-License-Identifier: MIT
 *
 * Strain (n, D) to stress (n, D) and tangent (n, D, D) [MPa] of points in rows, block by block. It follows potential.c or
 * branch.c. All of it is C99 with the vector extensions of GCC and Clang. At finite strain, with DIM, the rows are
 * displacement gradients and first Piola-Kirchhoff stresses of FULL components, see turned.h.
 */
#ifndef DIM
#define FULL D
#endif

void response(long n, const network *p, const REAL *strain, REAL *stress, REAL *tangent, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long first = 0; first < n; first += LANES) {
    lanes e[D], s[D], t[D * D];
    const int count = n - first < LANES ? (int)(n - first) : LANES;
#ifdef DIM
    polar turned[LANES];
    for (int b = 0; b < LANES; ++b) decompose(strain + (first + (b < count ? b : 0)) * FULL, turned + b, &e[0][b], LANES);
    block(p, e, s, t);
    for (int b = 0; b < count; ++b)
      turn_back(turned + b, &s[0][b], &t[0][b], LANES, stress + (first + b) * FULL, tangent + (first + b) * FULL * FULL);
#else
    for (int i = 0; i < D; ++i)
      EACH e[i][b] = strain[(first + (b < count ? b : 0)) * D + i];
    block(p, e, s, t);
    for (int b = 0; b < count; ++b) {
      for (int i = 0; i < D; ++i) stress[(first + b) * D + i] = s[i][b];
      for (int i = 0; i < D * D; ++i) tangent[(first + b) * D * D + i] = t[i][b];
    }
#endif
  }
}
