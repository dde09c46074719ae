/* SPDX-License-Identifier: MIT
 *
 * Points side by side: a `lanes` is one number of each of LANES points, and EACH is the loop over them, which becomes
 * vector instructions. What a block of points needs stays in the cache. REAL, double or float, and LANES are constants
 * of the compilation.
 */
#include <math.h>
#include <stdint.h>

#define EACH for (int b = 0; b < LANES; ++b)

typedef REAL lanes[LANES];
