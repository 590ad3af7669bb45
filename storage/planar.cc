#include "storage/planar.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

namespace flashelm {
namespace {

// Transposes a matrix [num_rows, num_cols] of cells of `cell_bytes`, in place.
void Transpose(std::byte* cells, size_t num_rows, size_t num_cols,
               size_t cell_bytes) {
  const auto came_from = [&](size_t to) {
    return to % num_rows * num_cols + to / num_rows;
  };
  for (size_t to = 0; to < num_rows * num_cols; ++to) {
    // Cells before `to` are in their places: what was there went, by exchanges,
    // to where the one that took its place came from, and so on.
    size_t from = came_from(to);
    while (from < to) from = came_from(from);
    if (from == to) continue;
    std::byte* const cell = cells + to * cell_bytes;
    std::swap_ranges(cell, cell + cell_bytes, cells + from * cell_bytes);
  }
}

}  // namespace

bool CanBePlanar(const Segment& segment) {
  if (segment.parts.size() < 2) return false;
  const uint64_t part_bytes = segment.parts[0].num_bytes();
  uint64_t offset = 0;
  return std::ranges::all_of(segment.parts, [&](const Part& part) {
    return part.num_bytes() == part_bytes &&
           part.offset_bytes == std::exchange(offset, offset + part_bytes);
  });
}

void MakePlanar(const Segment& segment, uint64_t num_records,
                std::byte* records) {
  assert(CanBePlanar(segment));
  const size_t num_parts = segment.parts.size();
  const size_t part_bytes = segment.parts[0].num_bytes();
  for (uint64_t first = 0; first < num_records; first += kPlanarRecords) {
    const uint64_t count = std::min(kPlanarRecords, num_records - first);
    std::byte* const block = records + first * segment.stride_bytes;
    if (segment.stride_bytes > num_parts * part_bytes) {
      for (uint64_t i = 1; i < count; ++i) {
        std::memmove(block + i * num_parts * part_bytes,
                     block + i * segment.stride_bytes, num_parts * part_bytes);
      }
    }
    Transpose(block, count, num_parts, part_bytes);
  }
}

}  // namespace flashelm
