/* SPDX-License-Identifier: MIT
 *
 * Points side by side: a `lanes` holds one number of each of LANES points, and EACH loops over them, which compiles to
 * vector instructions. The numbers of a block of points stay in the cache. REAL (double or float) and LANES are
 * compile-time constants.
 */
#include <math.h>
#include <stdint.h>

#define EACH for (int b = 0; b < LANES; ++b)

typedef REAL lanes[LANES];
