// Which machine a figure comes from. What a system does not say is nothing.
// `system_root` comes before "/proc" and "/sys".
#ifndef FLASHELM_CLI_MACHINE_H_
#define FLASHELM_CLI_MACHINE_H_

#include <optional>
#include <string>

namespace flashelm::cli {

// As the kernel calls the processor.
std::optional<std::string> CpuName();

// As uname has it: "Linux 6.1.0-18-amd64".
std::optional<std::string> KernelName();

// Where a file lies: "ext4"; the block device, such as "vda1", not for file
// systems without one; and what the maker calls the drive behind that, which a
// virtual one often has no name for.
std::optional<std::string> FileSystemType(const std::string& path,
                                          const std::string& system_root = "");
std::optional<std::string> BlockDeviceOf(const std::string& path);
std::optional<std::string> StorageModel(const std::string& block_device,
                                        const std::string& system_root = "");

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_MACHINE_H_
