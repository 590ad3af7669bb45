// The native part of flashelm.TextModel: flashelm.hpp in terms of JNI.
//
// What the library throws becomes a Java exception; what a listener throws
// passes through. Text crosses as bytes, since JNI's strings are not UTF-8. A
// callback comes in the thread of the call, so the JNIEnv of the call is good
// for it.
#include <jni.h>

#include <cstdint>
#include <exception>
#include <string>
#include <string_view>

#include "flashelm/flashelm.hpp"

namespace {

struct Pending {};  // A Java exception is: back to Java.

struct Model {
  Model(const flashelm::Source& source, const flashelm::EngineOptions& options)
      : session(flashelm::Engine::Open(source, options)) {}
  flashelm::Session session;  // Holds its engine.
};

Model* FromHandle(jlong handle) { return reinterpret_cast<Model*>(handle); }

template <class Result>
Result CheckNew(Result result) {
  if (result == nullptr) throw Pending();
  return result;
}

jbyteArray NewBytes(JNIEnv* env, std::string_view text) {
  const auto size = static_cast<jsize>(text.size());
  jbyteArray bytes = CheckNew(env->NewByteArray(size));
  env->SetByteArrayRegion(bytes, 0, size,
                          reinterpret_cast<const jbyte*>(text.data()));
  return bytes;
}

std::string CopyBytes(JNIEnv* env, jbyteArray bytes) {
  std::string copy(static_cast<size_t>(env->GetArrayLength(bytes)), '\0');
  env->GetByteArrayRegion(bytes, 0, static_cast<jsize>(copy.size()),
                          reinterpret_cast<jbyte*>(copy.data()));
  return copy;
}

void ThrowNew(JNIEnv* env, const char* class_name, const char* message) {
  env->ThrowNew(CheckNew(env->FindClass(class_name)), message);
}

void ThrowError(JNIEnv* env, const flashelm::Error& error) {
  if (error.code() == FLASHELM_CANCELLED) {
    ThrowNew(env, "java/util/concurrent/CancellationException", "cancelled");
    return;
  }
  jclass type = CheckNew(env->FindClass("flashelm/FlashelmException"));
  jmethodID make = CheckNew(env->GetMethodID(type, "<init>", "(I[B)V"));
  jobject thrown =
      CheckNew(env->NewObject(type, make, static_cast<jint>(error.code()),
                              NewBytes(env, error.what())));
  env->Throw(static_cast<jthrowable>(thrown));
}

// What `call` returns; 0 with a Java exception when it throws. No C++ exception
// may leave a native method.
template <class Call>
jlong Guard(JNIEnv* env, Call call) noexcept {
  try {
    try {
      return call();
    } catch (const flashelm::Error& error) {
      ThrowError(env, error);
    } catch (const std::exception& error) {  // There is no memory left.
      ThrowNew(env, "java/lang/OutOfMemoryError", error.what());
    }
  } catch (const Pending&) {
  }
  return 0;
}

}  // namespace

extern "C" {
JNIEXPORT jlong JNICALL Java_flashelm_TextModel_nativeOpen(
    JNIEnv* env, jclass, jbyteArray path, jint fd, jlong offset, jlong length,
    jlong memory_bytes, jint context) {
  return Guard(env, [&] {
    flashelm::EngineOptions options;
    options.memory_bytes = static_cast<uint64_t>(memory_bytes);
    options.context = static_cast<uint32_t>(context);
    const std::string text = path == nullptr ? "" : CopyBytes(env, path);
    auto source = flashelm::Source::Path(text.c_str());
    if (path == nullptr) {
      source = flashelm::Source::Descriptor(fd, static_cast<uint64_t>(offset),
                                            static_cast<uint64_t>(length));
    }
    return reinterpret_cast<jlong>(new Model(source, options));
  });
}

JNIEXPORT jlong JNICALL Java_flashelm_TextModel_nativeGenerate(
    JNIEnv* env, jclass self, jlong handle, jbyteArray prompt, jlong max_tokens,
    jobject listener) {
  flashelm::Session& session = FromHandle(handle)->session;
  return Guard(env, [&] {
    jmethodID deliver = CheckNew(env->GetStaticMethodID(
        self, "deliver", "(Lflashelm/TextModel$TextListener;[B)Z"));
    const auto show = [&](std::string_view text) {
      if (text.empty()) return true;
      jbyteArray bytes = NewBytes(env, text);
      const bool goes_on =
          env->CallStaticBooleanMethod(self, deliver, listener, bytes);
      if (env->ExceptionCheck()) throw Pending();
      // A text is one native call, which would keep it until its end.
      env->DeleteLocalRef(bytes);
      return goes_on;
    };
    flashelm::GenerateOptions options;
    options.max_tokens = static_cast<uint64_t>(max_tokens);
    try {
      const auto written =
          session.Generate(CopyBytes(env, prompt), options, show);
      return static_cast<jlong>(written.num_tokens);
    } catch (const flashelm::Error& error) {
      // A cancel() counts once.
      if (error.code() == FLASHELM_CANCELLED) session.ClearCancel();
      throw;
    }
  });
}

JNIEXPORT void JNICALL Java_flashelm_TextModel_nativeClear(JNIEnv* env, jclass,
                                                           jlong handle) {
  Guard(env, [&] { return FromHandle(handle)->session.Truncate(0), 0; });
}

JNIEXPORT void JNICALL Java_flashelm_TextModel_nativeCancel(JNIEnv*, jclass,
                                                            jlong handle) {
  FromHandle(handle)->session.Cancel();
}

JNIEXPORT void JNICALL Java_flashelm_TextModel_nativeClose(JNIEnv*, jclass,
                                                           jlong handle) {
  delete FromHandle(handle);
}

}  // extern "C"
