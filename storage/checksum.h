// XXH3, by the names the model file uses for it.
#ifndef FLASHELM_STORAGE_CHECKSUM_H_
#define FLASHELM_STORAGE_CHECKSUM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace flashelm {

// XXH3 of the bytes with seed 0: 64 bits, and its low 32.
uint64_t Xxh3(std::span<const std::byte> bytes);
uint32_t Xxh3Low32(std::span<const std::byte> bytes);

// XXH3 of bytes that come in pieces. Move-only, one thread.
class Xxh3Stream {
 public:
  Xxh3Stream();
  ~Xxh3Stream();
  Xxh3Stream(Xxh3Stream&&) noexcept;
  Xxh3Stream& operator=(Xxh3Stream&&) noexcept;

  void Reset();
  void Update(std::span<const std::byte> bytes);
  // Of everything since the last Reset().
  uint64_t Digest64() const;
  // 32 lower-case hex digits, as `xxhsum -H2` prints them.
  std::string Digest128Hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_CHECKSUM_H_
