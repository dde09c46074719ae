/* SPDX-License-Identifier: MIT
 *
 * Points side by side: a `lanes` is one number of each of LANES points, and EACH is the loop over them, which becomes
 * vector instructions. What a block of points needs stays in the cache. REAL is double or float, by the compilation.
 */
#include <math.h>
#include <stdint.h>

#define LANES 64
#define EACH for (int b = 0; b < LANES; ++b)

typedef REAL lanes[LANES];
