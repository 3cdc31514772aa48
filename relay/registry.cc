#include "relay/registry.h"

#include <algorithm>
#include <utility>

namespace ringsock::relay {

Registry::Registry(const Limits& limits, std::vector<Mailbox*> mailboxes)
    : limits_(limits), mailboxes_(std::move(mailboxes)) {}

// ---- Admission ----

Registry::Admission Registry::Admit(Instant now) {
  const std::lock_guard lock(mutex_);
  if (std::exchange(first_accept_, false)) {
    accepts_ = derp::TokenBucket(limits_.accepts_per_second, limits_.accept_burst, now);
  }
  if (totals_.connections >= limits_.max_clients) return Admission::kFull;
  if (totals_.connections - totals_.clients >= limits_.max_logins) return Admission::kLogins;
  if (!accepts_.TryTake(1, now)) return Admission::kRate;
  ++totals_.connections;
  return Admission::kYes;
}

void Registry::Leave(bool logged_in) {
  const std::lock_guard lock(mutex_);
  --totals_.connections;
  if (logged_in) --totals_.clients;
}

void Registry::SetAllowList(std::shared_ptr<const AllowList> allow) {
  const std::lock_guard lock(mutex_);
  allow_ = std::move(allow);
}

bool Registry::Allowed(const PublicKey& key) const {
  const std::lock_guard lock(mutex_);
  return allow_ == nullptr || allow_->contains(key);
}

// ---- Clients ----

Route Registry::RouteOf(const Entry& entry) {
  if (!entry.clients.empty()) return {Route::Kind::kClient, entry.clients.back()};
  if (!entry.links.empty()) return {Route::Kind::kMesh, entry.links.front()};
  return {};
}

void Registry::Broadcast(const PublicKey& key, const Route& route) {
  for (Mailbox* mailbox : mailboxes_) mailbox->Post({Notice::Kind::kRoute, key, route});
}

void Registry::Tell(Notice::Kind kind, const PublicKey& key, const ConnectionRef& ref) {
  mailboxes_[ref.worker]->Post({kind, key, {Route::Kind::kClient, ref}});
}

bool Registry::Login(const PublicKey& key, const ConnectionRef& ref, bool mesh, bool* duplicate) {
  const std::lock_guard lock(mutex_);
  *duplicate = false;
  if (mesh) return ++totals_.clients, true;
  if (allow_ != nullptr && !allow_->contains(key)) return false;
  Entry& entry = entries_[key];
  *duplicate = !entry.clients.empty();
  for (const ConnectionRef& other : entry.clients) Tell(Notice::Kind::kDuplicate, key, other);
  // All that are over: one that was told before may not have gone yet.
  for (size_t i = 0; i + limits_.max_connections_per_key <= entry.clients.size(); ++i) {
    Tell(Notice::Kind::kCloseOldest, key, entry.clients[i]);
  }
  if (entry.clients.empty()) ++totals_.keys;
  ++totals_.clients;
  entry.clients.push_back(ref);
  Broadcast(key, RouteOf(entry));
  return true;
}

Registry::Remainder Registry::Logout(const PublicKey& key, const ConnectionRef& ref) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return {};
  Entry& entry = found->second;
  const bool received = !entry.clients.empty() && entry.clients.back() == ref;
  if (std::erase(entry.clients, ref) == 0) return {};
  if (received) Broadcast(key, RouteOf(entry));
  if (entry.clients.size() == 1) Tell(Notice::Kind::kNotDuplicate, key, entry.clients.front());
  if (!entry.clients.empty()) return {.nobody = false, .heir = entry.clients.back()};
  --totals_.keys;
  const bool gone = entry.links.empty();
  if (gone) entries_.erase(found);
  return {.nobody = gone, .heir = std::nullopt};
}

// ---- Mesh ----

void Registry::AddMeshRoute(const PublicKey& key, const ConnectionRef& link) {
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[key];
  if (std::find(entry.links.begin(), entry.links.end(), link) != entry.links.end()) return;
  if (entry.links.empty()) ++totals_.mesh_keys;
  entry.links.push_back(link);
  if (entry.clients.empty() && entry.links.size() == 1) Broadcast(key, RouteOf(entry));
}

void Registry::RemoveMeshRoute(const PublicKey& key, const ConnectionRef& link) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  const bool used = entry.clients.empty() && !entry.links.empty() && entry.links.front() == link;
  if (std::erase(entry.links, link) == 0) return;
  if (entry.links.empty()) --totals_.mesh_keys;
  if (used) Broadcast(key, RouteOf(entry));
  if (entry.links.empty() && entry.clients.empty()) entries_.erase(found);
}

void Registry::ClosePeer(const PublicKey& key) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return;
  for (const ConnectionRef& ref : found->second.clients) Tell(Notice::Kind::kClosePeer, key, ref);
}

Registry::Totals Registry::totals() const {
  const std::lock_guard lock(mutex_);
  return totals_;
}

}  // namespace ringsock::relay
