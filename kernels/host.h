// Memory and threads of the CPU driver.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

// Large blocks that were given back, for the next slab: the system would clear them again. While there are holders, which
// have slabs to come, more are kept.
class Spare {
  public:
    // Null where there is no memory.
    static void* take(size_t bytes) {
        bytes = rounded(bytes);
        const std::lock_guard<std::mutex> lock(mutex);
        for (size_t i = kept.size(); i-- > 0;) {  // the last ones are more likely in a cache
            if (kept[i].second != bytes) continue;
            void* at = kept[i].first;
            kept.erase(kept.begin() + i);
            kept_bytes -= bytes;
            return at;
        }
        return map(bytes);
    }
    static void give(void* at, size_t bytes) {
        bytes = rounded(bytes);
        const std::lock_guard<std::mutex> lock(mutex);
        kept.push_back({at, bytes});
        kept_bytes += bytes;
        let_go(most());
    }
    // A child of a fork must find the lock free, whatever another thread was doing.
    static void survive_forks() {
#if defined(__unix__) || defined(__APPLE__)
        static const int once = pthread_atfork([] { mutex.lock(); }, [] { mutex.unlock(); }, [] { mutex.unlock(); });
        (void)once;
#endif
    }
    static void hold(int64_t more) {
        survive_forks();
        const std::lock_guard<std::mutex> lock(mutex);
        holders += more;
        let_go(most());
    }

  private:
    static size_t most() { return size_t{holders > 0 ? 256u : 64u} << 20; }

    inline static std::mutex mutex;
    inline static std::vector<std::pair<void*, size_t>> kept;  // the oldest first
    inline static size_t kept_bytes = 0;
    inline static int64_t holders = 0;

    // Up to the next of 16 steps between powers of two: slabs of about one size fit each other's blocks.
    static size_t rounded(size_t bytes) {
        size_t step = size_t{1} << 18;
        while (step * 32 < bytes) step *= 2;
        return (bytes + step - 1) / step * step;
    }

    // Unmaps the oldest blocks until no more than `most` bytes are kept.
    static void let_go(size_t most) {
        size_t gone = 0;
        for (; kept_bytes > most; ++gone) {
            unmap(kept[gone].first, kept[gone].second);
            kept_bytes -= kept[gone].second;
        }
        kept.erase(kept.begin(), kept.begin() + gone);
    }

#if defined(__linux__)
    static void* map(size_t bytes) {
        void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) return nullptr;
        madvise(at, bytes, MADV_HUGEPAGE);
        return at;
    }
    static void unmap(void* at, size_t bytes) { munmap(at, bytes); }
#else
    static void* map(size_t bytes) { return std::malloc(bytes); }
    static void unmap(void* at, size_t) { std::free(at); }
#endif
};

// Memory that is not initialised; in large pages where the system has them.
class Memory {
  public:
    explicit Memory(size_t bytes) : bytes_(bytes < LARGE ? bytes + 1 : bytes) {
        at_ = bytes_ < LARGE ? std::malloc(bytes_) : Spare::take(bytes_);
        if (!at_) throw std::bad_alloc();
    }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory() {
        if (bytes_ < LARGE) std::free(at_);
        else Spare::give(at_, bytes_);
    }
    template <class T>
    T* as() const {
        return static_cast<T*>(at_);
    }
    size_t bytes() const { return bytes_; }

  private:
    static constexpr size_t LARGE = size_t{1} << 22;

    void* at_;
    size_t bytes_;
};

using Held = std::unique_ptr<Memory>;

template <class T>
Held room_for(int64_t count) {
    return std::make_unique<Memory>(static_cast<size_t>(count) * sizeof(T));
}

// Scratch that grows to what was asked for last, without keeping what it held.
template <class T>
class Scratch {
  public:
    T* of(int64_t count) {
        const size_t bytes = static_cast<size_t>(count) * sizeof(T);
        if (!held_ || held_->bytes() < bytes) {
            held_.reset();
            held_ = std::make_unique<Memory>(bytes + bytes / 4);
        }
        return held_->template as<T>();
    }

  private:
    Held held_;
};

struct Interrupted {};

// work(i, t) for i in [0, count) on threads t < threads, the next free one each; stops where `stop` is set.
template <class Work>
void for_each(int64_t count, int64_t threads, const int32_t* stop, const Work& work) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false}, stopped{false};
    auto run = [&](int64_t t) {
        try {
            for (int64_t i; !failed && !stopped && (i = next.fetch_add(1)) < count;) {
                if (stop && *static_cast<const volatile int32_t*>(stop)) stopped = true;
                else work(i, t);
            }
        } catch (const std::bad_alloc&) {
            failed = true;
        }
    };
    std::vector<std::thread> others;
    try {
        for (int64_t t = 1; t < std::min(threads, count); ++t) others.emplace_back(run, t);
    } catch (const std::system_error&) {
        // fewer threads than wanted: those that there are do the work
    }
    run(0);
    for (std::thread& other : others) other.join();
    if (failed) throw std::bad_alloc();
    if (stopped) throw Interrupted();
}

struct Range {
    int64_t begin, end;
};

// Consecutive items from `begin` to `end` in ranges of about `target` together.
template <class Count>
std::vector<Range> ranges_of(int64_t begin, int64_t end, int64_t target, const Count& count) {
    std::vector<Range> ranges;
    int64_t sum = 0;
    for (int64_t i = begin; i < end; ++i) {
        if (sum && sum + count(i) > target) {
            ranges.push_back({begin, i});
            begin = i;
            sum = 0;
        }
        sum += count(i);
    }
    if (begin < end) ranges.push_back({begin, end});
    return ranges;
}
