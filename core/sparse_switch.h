// Which layers' neurons are read one by one, and which are streamed.
#ifndef FLASHELM_CORE_SPARSE_SWITCH_H_
#define FLASHELM_CORE_SPARSE_SWITCH_H_

#include <functional>
#include <vector>

#include "core/base/status.h"
#include "core/memory_plan.h"
#include "core/model_file.h"
#include "core/neuron_frequency.h"

namespace flashelm {

// Streaming a layer's neurons brings all of them, in the order in which they
// lie and while the layers before are computed. Which ones to read one by one
// is known only when a layer's attention and gates are done; but those that are
// used often can be cached, where a pinned part of a streamed layer spares no
// more than its size.
//
// Of the plans with no layer streamed, a quarter of them, and so on, those
// first of which a token uses most neurons, the one by which a token is done
// soonest, as far as the options, the calibration and the read cost say. Where
// nothing says how many neurons are used: none for a ReLU model, of which few
// are, unless all are resident then; all for others, that keep to a bound on
// what is skipped, which most do.
//   options    with sparsity
//   make_plan  with these layers streamed, one flag for each; may fail, as for
//              a budget that is too small for some of them
// An error of make_plan(), where it fails for all.
Result<MemoryPlan> ChooseStreamedLayers(
    const ModelFile& model, const PlanOptions& options,
    const NeuronFrequency& frequency,
    const std::function<Result<MemoryPlan>(const std::vector<bool>& streamed)>&
        make_plan);

}  // namespace flashelm

#endif  // FLASHELM_CORE_SPARSE_SWITCH_H_
