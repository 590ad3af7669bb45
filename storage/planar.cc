#include "storage/planar.h"

#include <algorithm>
#include <cassert>

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
  const uint64_t num_parts = segment.parts.size();
  return num_parts > 1 &&
         std::ranges::all_of(segment.parts, [&](const Part& part) {
           return part.num_bytes() * num_parts == segment.stride_bytes;
         });
}

void MakePlanar(const Segment& segment, uint64_t num_records,
                std::byte* records) {
  assert(CanBePlanar(segment));
  const size_t num_parts = segment.parts.size();
  for (uint64_t first = 0; first < num_records; first += kPlanarRecords) {
    const uint64_t count = std::min(kPlanarRecords, num_records - first);
    Transpose(records + first * segment.stride_bytes, count, num_parts,
              segment.stride_bytes / num_parts);
  }
}

}  // namespace flashelm
