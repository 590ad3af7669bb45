package flashelm;

import java.nio.charset.StandardCharsets;
import java.util.concurrent.CancellationException;
import java.util.concurrent.locks.ReentrantLock;

/**
 * A model that writes text: an engine of the library with one session.
 *
 * <p>generate() is for one thread at a time, and not for that of the user
 * interface; cancel() and close() may come from any other.
 */
public final class TextModel implements AutoCloseable {
  static {
    System.loadLibrary("flashelm_jni");
  }

  /** Is given a text as it is written, in the thread that called generate(). */
  public interface TextListener {
    /** Returns whether to go on. What it throws comes out of generate(). */
    boolean onText(String text);
  }

  /** Held while the native session is in a call. */
  private final ReentrantLock call = new ReentrantLock();

  /** Of the native part; 0 when it is gone. Changes with `call` and this locked. */
  private long handle;

  private boolean isClosed;

  private TextModel(long handle) {
    this.handle = handle;
  }

  /**
   * Loads a model file. Takes seconds when it is large.
   *
   * @param memoryBytes a hard limit of what the model takes of RAM
   * @param contextTokens positions that a text may have
   */
  public static TextModel open(String path, long memoryBytes, int contextTokens)
      throws FlashelmException {
    return new TextModel(nativeOpen(utf8(path), -1, 0, 0, memoryBytes, contextTokens));
  }

  /**
   * The same for a part of an open file, which may be closed afterwards: on Android, of an asset
   * that lies in the APK without compression. AssetFileDescriptor knows its place.
   */
  public static TextModel open(
      int fd, long offset, long length, long memoryBytes, int contextTokens)
      throws FlashelmException {
    return new TextModel(nativeOpen(null, fd, offset, length, memoryBytes, contextTokens));
  }

  /**
   * Appends a prompt and what the model writes behind it to the text.
   *
   * @param maxTokens 0: until the model ends the text or the context is full
   * @return tokens that were written
   * @throws CancellationException after cancel(); the text can be continued
   */
  public long generate(String prompt, long maxTokens, TextListener listener)
      throws FlashelmException {
    enter();
    try {
      return nativeGenerate(openHandle(), utf8(prompt), maxTokens, listener);
    } finally {
      call.unlock();
    }
  }

  /** Forgets the text. */
  public void clear() throws FlashelmException {
    enter();
    try {
      nativeClear(openHandle());
    } finally {
      call.unlock();
    }
  }

  /** Ends the generate() that runs, or else the next one. Does not wait for that. */
  public synchronized void cancel() {
    if (handle != 0) {
      nativeCancel(handle);
    }
  }

  /** Ends a generate() that runs, waits for that, and gives all memory back. */
  @Override
  public void close() {
    if (!call.isHeldByCurrentThread()) { // Or enter() refuses.
      synchronized (this) {
        isClosed = true; // No other call begins.
        cancel();
      }
    }
    enter();
    try {
      synchronized (this) {
        nativeClose(handle);
        handle = 0;
      }
    } finally {
      call.unlock();
    }
  }

  private void enter() {
    if (call.isHeldByCurrentThread()) {
      throw new IllegalStateException("a listener may only cancel");
    }
    call.lock();
  }

  private synchronized long openHandle() {
    if (isClosed) {
      throw new IllegalStateException("the model is closed");
    }
    return handle;
  }

  private static byte[] utf8(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  /** Called by the native part. JNI's own strings are not UTF-8. */
  private static boolean deliver(TextListener listener, byte[] utf8) {
    return listener.onText(new String(utf8, StandardCharsets.UTF_8));
  }

  private static native long nativeOpen(
      byte[] path, int fd, long offset, long length, long memoryBytes, int contextTokens)
      throws FlashelmException;

  private static native long nativeGenerate(
      long handle, byte[] prompt, long maxTokens, TextListener listener)
      throws FlashelmException;

  private static native void nativeClear(long handle) throws FlashelmException;

  private static native void nativeCancel(long handle);

  private static native void nativeClose(long handle);
}
