// The gated nonlinearity of the FFN.
#ifndef FLASHELM_KERNELS_ACTIVATION_H_
#define FLASHELM_KERNELS_ACTIVATION_H_

#include <cstddef>
#include <cstdint>

namespace flashelm {

enum class Activation : uint8_t {
  kSilu,  // x / (1 + e^-x)
  kRelu,  // x, or 0 where x is negative
};

// out = act(gate) * up, element by element: the bits of an element depend on
// its gate and up only, not on its position or on n.
//   gate, up, out  [n]; out may be gate or up
// n may be 0. Finite inputs give NaN never, and infinity only where the product
// overflows. kRelu is exact up to the product's rounding. kSilu differs from
// reference::GluActivate by at most 4 epsilon of the element, plus
// (|gate| + 1) * (|up| + 1) times the least subnormal.
//
// Derivation of kSilu's. Let u = epsilon / 2, a rounding's relative error.
// e = e^-|gate| errs by 2 u (Highway says 1 ulp), and so does e / (1 + e), at
// most. gate * e, 1 + e, their quotient and the product with up round once
// each: 6 u = 3 epsilon. Where gate >= 0 there is no gate * e, and 1 + e errs
// by half of what e does: 4 u. The fourth epsilon is for products of errors.
// Where e underflows it errs by a least subnormal, times |gate * up| at last;
// gate * e and the quotient err by half of one each, times |up|, and the last
// product by half of one.
void GluActivate(Activation activation, const float* gate, const float* up,
                 size_t n, float* out);

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_ACTIVATION_H_
