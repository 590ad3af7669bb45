// Which machine a figure comes from.
#ifndef FLASHELM_CLI_MACHINE_H_
#define FLASHELM_CLI_MACHINE_H_

#include <optional>
#include <string>

namespace flashelm::cli {

// As the kernel calls the processor; nothing where it does not say.
std::optional<std::string> CpuName();

// The block device that holds a file, such as "vda1"; nothing for file systems
// without one.
std::optional<std::string> BlockDeviceOf(const std::string& path);

// Asks the system to forget what it has cached of a file, so that measuring
// begins cold. Whether it took the advice.
bool DropPageCache(const std::string& path);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_MACHINE_H_
