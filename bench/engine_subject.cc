// Runs the engine as a subject.
#include "bench/subject.h"

namespace ringsock::bench {

absl::Status RunEngineSubject(const SubjectConfig&, SubjectShared*, const SubjectHooks&) {
  return absl::UnimplementedError("the engine is not part of this build");
}

}  // namespace ringsock::bench
