// Who is connected, to all workers together: admission, duplicate keys, the way to each key. Used
// when a connection comes, logs in or goes, never for a packet; what changes is posted to the
// mailboxes of all workers in one order.
#ifndef RINGSOCK_RELAY_REGISTRY_H_
#define RINGSOCK_RELAY_REGISTRY_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/clock.h"
#include "base/key.h"
#include "derp/token_bucket.h"
#include "relay/mailbox.h"
#include "relay/options.h"
#include "relay/route.h"

namespace ringsock::relay {

// Thread safe. The mailboxes, one per worker, outlive it.
class Registry {
 public:
  enum class Admission : uint8_t { kYes, kRate, kFull, kLogins };

  Registry(const Limits& limits, std::vector<Mailbox*> mailboxes);

  // A connection has come. Each that is admitted ends in Leave(), once.
  Admission Admit(Instant now);
  void Leave(bool logged_in);

  void SetAllowList(std::shared_ptr<const AllowList> allow);
  bool Allowed(const PublicKey& key) const;

  // A client has proved its key; a server of the mesh has, which is no destination. False if it is
  // not on the allow-list; else it ends in Logout(). `duplicate`: the key has other connections;
  // they have been told.
  bool Login(const PublicKey& key, const ConnectionRef& ref, bool mesh, bool* duplicate);
  // Who is left of a key.
  struct Remainder {
    bool nobody = false;                // no connection here, nor in the mesh
    std::optional<ConnectionRef> heir;  // the one here that receives now
  };
  Remainder Logout(const PublicKey& key, const ConnectionRef& ref);

  // `link` leads to `key`, or no longer.
  void AddMeshRoute(const PublicKey& key, const ConnectionRef& link);
  void RemoveMeshRoute(const PublicKey& key, const ConnectionRef& link);
  // A meshed server wants the connections of a key closed.
  void ClosePeer(const PublicKey& key);
  void Post(uint32_t worker, const Notice& notice) { mailboxes_[worker]->Post(notice); }
  void Post(uint32_t worker, Mailbox::Call call) { mailboxes_[worker]->Post(std::move(call)); }

  struct Totals {
    uint64_t connections = 0;
    uint64_t clients = 0;
    uint64_t keys = 0;
    uint64_t mesh_keys = 0;
  };
  Totals totals() const;

 private:
  struct Entry {
    std::vector<ConnectionRef> clients;  // by login; the last one receives
    std::vector<ConnectionRef> links;    // that lead to it
  };

  static Route RouteOf(const Entry& entry);
  void Broadcast(const PublicKey& key, const Route& route);
  void Tell(Notice::Kind kind, const PublicKey& key, const ConnectionRef& ref);

  const Limits limits_;
  const std::vector<Mailbox*> mailboxes_;

  mutable std::mutex mutex_;
  derp::TokenBucket accepts_;
  bool first_accept_ = true;
  std::shared_ptr<const AllowList> allow_;
  absl::flat_hash_map<PublicKey, Entry> entries_;
  Totals totals_;
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_REGISTRY_H_
