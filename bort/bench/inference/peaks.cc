// What the processor and its memory can do at most: multiply-adds per second in float32, bfloat16 and INT8, and bytes read per second.
// Rates are in 10^9 per second, the best of some runs; 0 stands for what the processor has no instruction of its own for.

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace {

constexpr int kRuns = 5;
constexpr long kSteps = 10'000'000;
// Sums that do not wait for each other: enough for two units of a latency of four, or a few more, cycles.
constexpr int kSums = 12;
constexpr std::size_t kMemoryBytes = std::size_t{1} << 30;
constexpr std::size_t kBytesPerRun = std::size_t{2} << 30;

// Seconds that `work(thread)` takes on all threads at once, at best.
double best_seconds(int threads, const std::function<void(int)>& work) {
  double best = 1e300;
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> group;
    for (int thread = 0; thread < threads; ++thread) group.emplace_back(work, thread);
    for (auto& each : group) each.join();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

// 10^9 multiply-adds per second of an instruction that does `lanes` of them; `step` applies it to one sum.
template <typename Vector, typename Step>
double multiply_adds(int threads, int lanes, Vector zero, Step step) {
  const double seconds = best_seconds(threads, [&](int) {
    Vector sums[kSums];
    for (auto& sum : sums) sum = zero;
    for (long number = 0; number < kSteps; ++number) {
      for (auto& sum : sums) {
        sum = step(sum);
        // Keeps the compiler from adding up in another way.
        asm volatile("" : "+v"(sum));
      }
    }
  });
  return static_cast<double>(kSums) * kSteps * lanes * threads / seconds / 1e9;
}

// 10^9 bytes per second when threads read a buffer again and again, each a part of its own.
double read_rate(int threads, std::size_t bytes) {
  const std::size_t words = std::max<std::size_t>(bytes / sizeof(std::uint64_t) / threads, 1);
  std::vector<std::vector<std::uint64_t>> parts(threads);
  std::vector<std::uint64_t> totals(threads * 16);
  // Each thread touches its part first.
  std::vector<std::thread> group;
  for (int thread = 0; thread < threads; ++thread) group.emplace_back([&, thread] { parts[thread].assign(words, 1); });
  for (auto& each : group) each.join();
  const std::size_t passes = std::max<std::size_t>(kBytesPerRun / (words * sizeof(std::uint64_t) * threads), 1);
  const double seconds = best_seconds(threads, [&](int thread) {
    std::uint64_t total = 0;
    for (std::size_t pass = 0; pass < passes; ++pass) {
      const std::uint64_t* part = parts[thread].data();
      asm volatile("" : "+r"(part) : : "memory");
      for (std::size_t word = 0; word < words; ++word) total += part[word];
    }
    totals[thread * 16] = total;
  });
  return static_cast<double>(passes) * words * sizeof(std::uint64_t) * threads / seconds / 1e9;
}

}  // namespace

// Writes five rates: multiply-adds in float32, bfloat16 and INT8, bytes read of a buffer of `weights` bytes, and of one beyond all caches.
extern "C" void measure_peaks(int threads, std::size_t weights, double* rates) {
  std::fill(rates, rates + 5, 0.0);
#if defined(__AVX512F__)
  const __m512 factor = _mm512_set1_ps(0.999f), term = _mm512_set1_ps(0.001f);
  rates[0] = multiply_adds(threads, 16, term, [=](__m512 sum) { return _mm512_fmadd_ps(sum, factor, term); });
#elif defined(__FMA__)
  const __m256 factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps(0.001f);
  rates[0] = multiply_adds(threads, 8, term, [=](__m256 sum) { return _mm256_fmadd_ps(sum, factor, term); });
#endif
#if defined(__AVX512BF16__)
  const __m512bh half = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f00));
  rates[1] = multiply_adds(threads, 32, _mm512_setzero_ps(), [=](__m512 sum) { return _mm512_dpbf16_ps(sum, half, half); });
#endif
#if defined(__AVX512VNNI__)
  const __m512i level = _mm512_set1_epi8(1);
  rates[2] = multiply_adds(threads, 64, _mm512_setzero_si512(), [=](__m512i sum) { return _mm512_dpbusd_epi32(sum, level, level); });
#elif defined(__AVXVNNI__)
  const __m256i level = _mm256_set1_epi8(1);
  rates[2] = multiply_adds(threads, 32, _mm256_setzero_si256(), [=](__m256i sum) { return _mm256_dpbusd_avx_epi32(sum, level, level); });
#endif
  rates[3] = read_rate(threads, weights);
  rates[4] = read_rate(threads, kMemoryBytes);
}
