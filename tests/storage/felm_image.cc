#include "tests/storage/felm_image.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "storage/checksum.h"
#include "storage/compression.h"

namespace flashelm {
namespace {

template <class T>
T Take(const std::vector<std::byte>& file, size_t& at) {
  T value;
  std::memcpy(&value, file.data() + at, sizeof(value));
  at += sizeof(value);
  return value;
}

}  // namespace

FelmHeader ReadFelmHeader(const std::vector<std::byte>& file) {
  FelmHeader header;
  size_t at = sizeof(kFelmMagic) + 2 * sizeof(uint32_t);
  header.file_bytes = Take<uint64_t>(file, at);
  for (Section& section : header.sections) {
    section.offset_bytes = Take<uint64_t>(file, at);
    section.stored_bytes = Take<uint64_t>(file, at);
    section.raw_bytes = Take<uint64_t>(file, at);
    section.codec = Take<uint32_t>(file, at);
    Take<uint32_t>(file, at);
    section.checksum = Take<uint64_t>(file, at);
  }
  return header;
}

Json ReadFelmManifest(const std::vector<std::byte>& file) {
  const Section section = ReadFelmHeader(file).sections[kManifest];
  const auto text = ZstdDecompress(
      std::span(file).subspan(section.offset_bytes, section.stored_bytes),
      section.raw_bytes, "manifest");
  if (!text) {
    ADD_FAILURE() << text.error().message();
    return Json();
  }
  return Json::parse(*text);
}

void SealHeader(std::vector<std::byte>& file) {
  constexpr size_t kAt = kFelmHeaderBytes - sizeof(uint64_t);
  const uint64_t checksum = Xxh3(std::span(file).first(kAt));
  std::memcpy(file.data() + kAt, &checksum, sizeof(checksum));
}

std::vector<std::byte> EditFelm(std::vector<std::byte> file,
                                const FelmEdit& edit) {
  FelmHeader header = ReadFelmHeader(file);
  if (edit.manifest || edit.manifest_text) {
    Json manifest = ReadFelmManifest(file);
    if (edit.manifest) edit.manifest(manifest);
    const std::string text =
        edit.manifest_text ? edit.manifest_text(manifest) : manifest.dump();
    const std::string frame = ZstdCompress(text).value();
    Section& section = header.sections[kManifest];
    const uint64_t room =
        header.sections[kTokenizer].offset_bytes - section.offset_bytes;
    if (frame.size() > room) {
      ADD_FAILURE() << "a manifest of " << frame.size() << " in " << room;
      return file;
    }
    std::byte* at = file.data() + section.offset_bytes;
    std::fill(at, at + room, std::byte{0});
    std::memcpy(at, frame.data(), frame.size());
    section.stored_bytes = frame.size();
    section.raw_bytes = text.size();
    section.checksum = Xxh3(std::as_bytes(std::span(frame)));
  }
  if (edit.header) edit.header(header);
  const auto front = SerializeHeader(header);
  std::copy(front.begin(), front.end(), file.begin());
  if (edit.bytes) {
    edit.bytes(file);
    if (file.size() >= kFelmHeaderBytes) SealHeader(file);
  }
  return file;
}

}  // namespace flashelm
