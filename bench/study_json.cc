// A study as JSON, and back.
#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "bench/study.h"

namespace ringsock::bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "ringsock-bench report";
constexpr int kVersion = 1;
// No report of ours comes near them; a file that does is something else.
constexpr size_t kMaxList = 10'000;

// Four digits after the point are more than any figure here is good for.
Json OfNumber(double value) {
  if (!std::isfinite(value)) return nullptr;
  return std::round(value * 1e4) / 1e4;
}

Json OfSubject(const StudySubject& subject) {
  Json rounds = Json::array();
  for (const StudySample& sample : subject.rounds) {
    rounds.push_back({{"ns_per_packet", OfNumber(sample.ns_per_packet)},
                      {"packets_per_second", OfNumber(sample.packets_per_second)},
                      {"busy", OfNumber(sample.busy)},
                      {"sent", sample.sent},
                      {"lost", sample.lost}});
  }
  Json out = {{"name", subject.name}, {"bare", subject.bare}, {"rounds", std::move(rounds)}};
  if (!subject.error.empty()) out["error"] = subject.error;
  return out;
}

Json OfPoint(const StudyPoint& point) {
  Json subjects = Json::array();
  for (const StudySubject& subject : point.subjects) subjects.push_back(OfSubject(subject));
  return {{"x", OfNumber(point.x)},       {"label", point.label}, {"traffic", point.traffic},
          {"size", OfNumber(point.size)}, {"error", point.error}, {"command", point.command},
          {"subjects", subjects}};
}

Json OfHead(const StudyChart& chart) {
  return {{"id", chart.id},           {"title", chart.title}, {"text", chart.text},
          {"x_label", chart.x_label}, {"bars", chart.bars},   {"log_x", chart.log_x}};
}

std::string Text(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

// The text of an object with one more field, whose value is the lines: a point to a line keeps the
// file short, and changes of it readable.
std::string WithList(std::string object, const char* name, const std::vector<std::string>& lines) {
  while (object.back() == '}' || object.back() == '\n') object.pop_back();
  absl::StrAppend(&object, ",\n \"", name, "\": [");
  for (size_t i = 0; i < lines.size(); ++i) {
    absl::StrAppend(&object, i == 0 ? "\n" : ",\n", lines[i]);
  }
  return absl::StrCat(object, "\n]}");
}

// Reads fields of one object. The first mistake is kept and said with its place.
class Reader {
 public:
  Reader(const Json& json, std::string where, absl::Status* status)
      : json_(json), where_(std::move(where)), status_(status) {
    if (!json.is_object()) Fail("", "must be an object");
  }

  void Get(const char* name, std::string* out) {
    const Json* value = Find(name);
    if (value == nullptr) return;
    if (!value->is_string()) return Fail(name, "must be a string");
    *out = value->get<std::string>();
  }
  void Get(const char* name, bool* out) {
    const Json* value = Find(name);
    if (value == nullptr) return;
    if (!value->is_boolean()) return Fail(name, "must be true or false");
    *out = value->get<bool>();
  }
  void Get(const char* name, double* out) {
    const Json* value = Find(name);
    if (value == nullptr) return;
    if (value->is_null()) {
      *out = std::numeric_limits<double>::quiet_NaN();
      return;
    }
    if (!value->is_number()) return Fail(name, "must be a number or null");
    *out = value->get<double>();
  }
  void Get(const char* name, uint64_t* out) {
    const Json* value = Find(name);
    if (value == nullptr) return;
    if (!value->is_number_unsigned()) return Fail(name, "must be a whole number, not negative");
    *out = value->get<uint64_t>();
  }
  void Get(const char* name, uint32_t* out) {
    uint64_t wide = *out;
    Get(name, &wide);
    if (wide > UINT32_MAX) return Fail(name, "is too large");
    *out = static_cast<uint32_t>(wide);
  }
  void Get(const char* name, std::vector<int>* out) {
    Each(name, [&](const Json& item, const std::string& where) {
      if (!item.is_number_unsigned() || item.get<uint64_t>() > 1u << 20) {
        return Set(absl::StrCat(where, ": must be the number of a core"));
      }
      out->push_back(item.get<int>());
    });
  }
  // Objects of a list.
  template <typename T>
  void Get(const char* name, std::vector<T>* out, void (*read)(Reader&, T*)) {
    Each(name, [&](const Json& item, const std::string& where) {
      Reader reader(item, where, status_);
      if (status_->ok()) read(reader, &out->emplace_back());
    });
  }
  void Require(const char* name) {
    if (Find(name) == nullptr) Fail(name, "is missing");
  }
  bool ok() const { return status_->ok(); }

 private:
  const Json* Find(const char* name) const {
    if (!json_.is_object()) return nullptr;
    const auto found = json_.find(name);
    return found == json_.end() ? nullptr : &*found;
  }
  template <typename Visit>
  void Each(const char* name, Visit visit) {
    const Json* list = Find(name);
    if (list == nullptr) return;
    if (!list->is_array()) return Fail(name, "must be a list");
    if (list->size() > kMaxList) return Fail(name, "is too long");
    for (size_t i = 0; i < list->size() && ok(); ++i) {
      visit((*list)[i], absl::StrCat(where_, where_.empty() ? "" : ".", name, "[", i, "]"));
    }
  }
  void Fail(absl::string_view name, absl::string_view what) {
    Set(absl::StrCat(where_, where_.empty() || name.empty() ? "" : ".", name,
                     where_.empty() && name.empty() ? "" : ": ", what));
  }
  void Set(const std::string& message) {
    if (status_->ok()) *status_ = absl::InvalidArgumentError(message);
  }

  const Json& json_;
  const std::string where_;
  absl::Status* const status_;
};

void ReadSample(Reader& reader, StudySample* sample) {
  reader.Get("ns_per_packet", &sample->ns_per_packet);
  reader.Get("packets_per_second", &sample->packets_per_second);
  reader.Get("busy", &sample->busy);
  reader.Get("sent", &sample->sent);
  reader.Get("lost", &sample->lost);
}

void ReadSubject(Reader& reader, StudySubject* subject) {
  reader.Require("name");
  reader.Get("name", &subject->name);
  reader.Get("bare", &subject->bare);
  reader.Get("rounds", &subject->rounds, &ReadSample);
  reader.Get("error", &subject->error);
}

void ReadPoint(Reader& reader, StudyPoint* point) {
  reader.Get("x", &point->x);
  reader.Get("label", &point->label);
  reader.Get("traffic", &point->traffic);
  reader.Get("size", &point->size);
  reader.Get("error", &point->error);
  reader.Get("command", &point->command);
  reader.Get("subjects", &point->subjects, &ReadSubject);
}

void ReadChart(Reader& reader, StudyChart* chart) {
  reader.Require("id");
  reader.Get("id", &chart->id);
  reader.Get("title", &chart->title);
  reader.Get("text", &chart->text);
  reader.Get("x_label", &chart->x_label);
  reader.Get("bars", &chart->bars);
  reader.Get("log_x", &chart->log_x);
  reader.Get("points", &chart->points, &ReadPoint);
}

void ReadStudy(Reader& reader, Study* study) {
  reader.Get("date", &study->date);
  reader.Get("plan", &study->plan);
  reader.Get("machine", &study->machine);
  reader.Get("kernel", &study->kernel);
  reader.Get("cores", &study->cores);
  reader.Get("load_cores", &study->load_cores);
  reader.Get("subject_cores", &study->subject_cores);
  reader.Get("receive_buffer", &study->receive_buffer);
  reader.Get("send_buffer", &study->send_buffer);
  reader.Get("rounds", &study->rounds);
  reader.Get("seconds", &study->seconds);
  reader.Get("warmup", &study->warmup);
  reader.Get("engine_options", &study->engine_options);
  reader.Get("command", &study->command);
  reader.Require("charts");
  reader.Get("charts", &study->charts, &ReadChart);
}

}  // namespace

std::string StudyToJson(const Study& study) {
  std::vector<std::string> charts;
  for (const StudyChart& chart : study.charts) {
    std::vector<std::string> points;
    for (const StudyPoint& point : chart.points) points.push_back(Text(OfPoint(point), -1));
    charts.push_back(WithList(Text(OfHead(chart), -1), "points", points));
  }
  const Json head = {{"format", kFormat},
                     {"version", kVersion},
                     {"date", study.date},
                     {"plan", study.plan},
                     {"machine", study.machine},
                     {"kernel", study.kernel},
                     {"cores", study.cores},
                     {"load_cores", study.load_cores},
                     {"subject_cores", study.subject_cores},
                     {"receive_buffer", study.receive_buffer},
                     {"send_buffer", study.send_buffer},
                     {"rounds", study.rounds},
                     {"seconds", OfNumber(study.seconds)},
                     {"warmup", OfNumber(study.warmup)},
                     {"engine_options", study.engine_options},
                     {"command", study.command}};
  return WithList(Text(head, 1), "charts", charts) + "\n";
}

absl::StatusOr<Study> StudyFromJson(const std::string& json) {
  Json document;
  try {
    document = Json::parse(json);
  } catch (const Json::parse_error& error) {
    return absl::InvalidArgumentError(absl::StrCat(
        "not JSON, from byte ", std::min(error.byte, json.size()), " of ", json.size()));
  }
  if (!document.is_object() || !document.contains("format") || document["format"] != kFormat) {
    return absl::InvalidArgumentError("JSON, but not of a report: \"format\" is another or none");
  }
  if (!document.contains("version") || document["version"] != kVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat("a report of another version than ", kVersion, "; measure again"));
  }
  absl::Status status;
  Study study;
  Reader reader(document, "", &status);
  ReadStudy(reader, &study);
  if (!status.ok()) return status;
  return study;
}

}  // namespace ringsock::bench
