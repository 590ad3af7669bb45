#include "storage/checksum.h"

#include <xxhash.h>

#include <new>

#include "core/base/format.h"

namespace flashelm {

uint64_t Xxh3(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

uint32_t Xxh3Low32(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(Xxh3(bytes));
}

struct Xxh3Stream::State {
  State() : xxh(XXH3_createState()) {
    if (xxh == nullptr) throw std::bad_alloc();
  }
  ~State() { XXH3_freeState(xxh); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  XXH3_state_t* xxh;
};

Xxh3Stream::Xxh3Stream() : state_(std::make_unique<State>()) { Reset(); }
Xxh3Stream::~Xxh3Stream() = default;
Xxh3Stream::Xxh3Stream(Xxh3Stream&&) noexcept = default;
Xxh3Stream& Xxh3Stream::operator=(Xxh3Stream&&) noexcept = default;

// A state serves 64 and 128 bits alike; both resets do the same.
void Xxh3Stream::Reset() { XXH3_128bits_reset(state_->xxh); }

void Xxh3Stream::Update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
}

uint64_t Xxh3Stream::Digest64() const {
  return XXH3_64bits_digest(state_->xxh);
}

std::string Xxh3Stream::Digest128Hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->xxh);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace flashelm
