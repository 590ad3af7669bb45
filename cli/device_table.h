// What was measured of a device, for people.
#ifndef FLASHELM_CLI_DEVICE_TABLE_H_
#define FLASHELM_CLI_DEVICE_TABLE_H_

#include "core/device.h"

namespace flashelm::cli {

// Tables of rates on standard output, in Markdown, and the best of each reader.
void PrintDeviceProfile(const DeviceProfile& profile);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_DEVICE_TABLE_H_
