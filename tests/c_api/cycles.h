// What is left of an engine that was closed.
#ifndef FLASHELM_TESTS_C_API_CYCLES_H_
#define FLASHELM_TESTS_C_API_CYCLES_H_

namespace flashelm::test {

// Opens tiny-stories, generates 8 tokens and closes, so many times, and expects
// as many threads, descriptors and resident bytes as before.
void ExpectNothingIsLeftAfter(int num_cycles);

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_C_API_CYCLES_H_
