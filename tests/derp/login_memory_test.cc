// The mesh key in a client's JSON: what is freed of it has been wiped.
#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "derp/login.h"

namespace {

// What is looked for in memory that is freed, while it is not null.
const char* g_secret = nullptr;
int g_found = 0;

void Free(void* memory) noexcept {
  if (g_secret != nullptr && memory != nullptr &&
      memmem(memory, malloc_usable_size(memory), g_secret, strlen(g_secret)) != nullptr) {
    ++g_found;
  }
  std::free(memory);
}

}  // namespace

// Not inlined, or the compiler pairs malloc() with the library's operator delete.
[[gnu::noinline]] void* operator new(size_t size) {
  void* memory = std::calloc(1, size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { Free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { Free(memory); }

namespace ringsock::derp {
namespace {

constexpr char kSecret[] = "0f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdeffedcba9876543210";

TEST(LoginMemoryTest, FreedMemoryHasNoMeshKey) {
  std::string text = std::string(R"({"meshKey":")") + kSecret + R"(","version":2,"AppName":"x"})";
  std::string refused =
      std::string(R"({"meshKey":")") + kSecret + R"(","version":1,"AppName":"x"})";
  g_secret = kSecret;
  {
    const auto info = ParseClientInfo(text);
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->mesh_key, *MeshKey::Parse(kSecret));
  }
  EXPECT_EQ(g_found, 0);
  EXPECT_FALSE(ParseClientInfo(refused).ok());
  EXPECT_EQ(g_found, 0);
  {
    const std::string copy = text;  // it would have been found
    EXPECT_EQ(copy, text);
  }
  EXPECT_EQ(g_found, 1);
  g_secret = nullptr;
}

}  // namespace
}  // namespace ringsock::derp
