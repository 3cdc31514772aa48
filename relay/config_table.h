// The one table that flags, the configuration file, --help and the line printed at start come from.
#ifndef RINGSOCK_RELAY_CONFIG_TABLE_H_
#define RINGSOCK_RELAY_CONFIG_TABLE_H_

#include <functional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "relay/config.h"

namespace ringsock::relay {

struct ConfigOption {
  const char* section;  // title of the part of --help that begins here, or ""
  const char* name;     // of the flag, without "--"
  const char* value;    // what --help calls its value; "" if it takes none
  const char* help;
  // An error says what is wanted; the caller adds the name and the value.
  std::function<absl::Status(absl::string_view text, Config*)> set;
  // The value as text; of a list, its items with commas in between.
  std::function<std::string(const Config&)> get = {};
  bool repeated = false;                    // a list: may be given several times
  std::function<void(Config*)> clear = {};  // of a list
  bool flag_only = false;                   // not in the file
};

std::span<const ConfigOption> ConfigTable();

// A DNS name (letters, digits, dots, dashes) or an IP address without brackets.
bool IsHostName(absl::string_view text);

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_CONFIG_TABLE_H_
