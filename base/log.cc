#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include <memory>

namespace ringsock {

spdlog::logger& Log() {
  // Leaked on purpose: threads may log while statics are torn down.
  static spdlog::logger* const logger = [] {
    auto* made =
        new spdlog::logger("ringsock", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("%Y-%m-%d %H:%M:%S.%e %L %v");
    made->flush_on(spdlog::level::warn);
    return made;
  }();
  return *logger;
}

}  // namespace ringsock
