// What reads cost on a device that was measured.
#ifndef FLASHELM_STORAGE_READ_COST_H_
#define FLASHELM_STORAGE_READ_COST_H_

#include <optional>

#include "storage/device_profile.h"
#include "storage/open_reader.h"
#include "storage/read_planner.h"

namespace flashelm {

// The cost that comes closest to a profile's random rates with a reader, kUring
// or kPread: for each size of requests the fastest rate, of whatever queue
// depth keeps the device busy; by least squares of the relative errors, so that
// small requests count as much as large ones. Where larger requests took no
// longer, bytes cost what they did in the fastest. Nothing: fewer than two
// sizes were measured.
std::optional<ReadCost> FitReadCost(const DeviceProfile& profile,
                                    IoBackend backend);

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_READ_COST_H_
