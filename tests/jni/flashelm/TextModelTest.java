package flashelm;

import java.io.File;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.lang.reflect.Field;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CountDownLatch;

/**
 * What the example in Java promises, on a model file that is given: {@code
 * TextModelTest MODEL.felm}. Throws where it does not hold.
 */
public final class TextModelTest {
  private static final long BUDGET = 4 << 20;
  private static final String PROMPT = "Once upon a time";
  private static final String STORY = ", there was a little girl named Lily.";

  private interface Body {
    void run() throws Exception;
  }

  public static void main(String[] args) throws Exception {
    String path = args[0];
    writesAStory(path);
    readsAPartOfAnOpenFile(path);
    saysWhatIsWrong(path);
    passesOnWhatAListenerThrows(path);
    stopsWhereAListenerSaysSo(path);
    isCancelledFromAnotherThread(path);
    isClosedWhileItWrites(path);
    refusesCallsOfAListener(path);
    refusesCallsOnceItIsClosed(path);
    takesAnyText(path);
    givesEverythingBack(path);
    System.out.println("all passed");
  }

  private static void writesAStory(String path) throws Exception {
    try (TextModel model = TextModel.open(path, BUDGET, 256)) {
      check(story(model).startsWith(STORY), "a story");
      // Of 200 references that stayed, -Xcheck:jni would warn.
      model.clear();
      StringBuilder text = new StringBuilder();
      check(model.generate(PROMPT, 200, append(text)) == 200, "as many as asked");
      check(text.toString().startsWith(STORY), "the same story again");
    }
  }

  private static void readsAPartOfAnOpenFile(String path) throws Exception {
    byte[] model = Files.readAllBytes(Path.of(path));
    Path file = Files.createTempFile("flashelm", ".apk");
    try {
      byte[] all = new byte[4096 + model.length + 1000];
      System.arraycopy(model, 0, all, 4096, model.length);
      Files.write(file, all);
      TextModel opened;
      try (FileInputStream stream = new FileInputStream(file.toFile())) {
        // Android has ParcelFileDescriptor.getFd() for this.
        Field number = FileDescriptor.class.getDeclaredField("fd");
        number.setAccessible(true);
        int fd = number.getInt(stream.getFD());
        opened = TextModel.open(fd, 4096, model.length, BUDGET, 256);
      }
      try (TextModel text = opened) {
        check(story(text).startsWith(STORY), "a story from a part of a file");
      }
    } finally {
      Files.delete(file);
    }
  }

  private static void saysWhatIsWrong(String path) throws Exception {
    FlashelmException missing =
        expect(FlashelmException.class, () -> TextModel.open("/none/\u00fc.felm", BUDGET, 256));
    check(missing.code() == FlashelmException.NOT_FOUND, "its code");
    check(missing.getMessage().contains("/none/\u00fc.felm"), missing.getMessage());
    FlashelmException small =
        expect(FlashelmException.class, () -> TextModel.open(path, 1 << 20, 256));
    check(small.code() == FlashelmException.BUDGET_INFEASIBLE, small.getMessage());
    expect(FlashelmException.class, () -> TextModel.open(-1, 0, 0, BUDGET, 256));
    try (TextModel model = TextModel.open(path, BUDGET, 16)) {
      expect(
          FlashelmException.class,
          () -> model.generate("word ".repeat(100), 1, text -> true));
      check(model.generate(PROMPT, 1, text -> true) == 1, "the call after an error");
    }
  }

  private static void passesOnWhatAListenerThrows(String path) throws Exception {
    try (TextModel model = TextModel.open(path, BUDGET, 256)) {
      RuntimeException thrown = new RuntimeException("by a listener");
      RuntimeException caught =
          expect(
              RuntimeException.class,
              () ->
                  model.generate(
                      PROMPT,
                      40,
                      text -> {
                        throw thrown;
                      }));
      check(caught == thrown, "the same exception");
      expect(NullPointerException.class, () -> model.generate(PROMPT, 40, null));
      model.clear();
      check(story(model).startsWith(STORY), "a story after an exception");
    }
  }

  private static void stopsWhereAListenerSaysSo(String path) throws Exception {
    try (TextModel model = TextModel.open(path, BUDGET, 256)) {
      check(model.generate(PROMPT, 40, text -> false) == 1, "one token");
    }
  }

  private static void isCancelledFromAnotherThread(String path) throws Exception {
    try (TextModel model = TextModel.open(path, BUDGET, 256)) {
      CountDownLatch begun = new CountDownLatch(1);
      CountDownLatch cancelled = new CountDownLatch(1);
      Thread button =
          new Thread(
              () -> {
                await(begun);
                model.cancel();
                cancelled.countDown();
              });
      button.start();
      expect(
          CancellationException.class,
          () ->
              model.generate(
                  PROMPT,
                  0,
                  text -> {
                    begun.countDown();
                    await(cancelled);
                    return true;
                  }));
      button.join();
      model.clear();
      check(story(model).startsWith(STORY), "a story after cancel()");
    }
  }

  private static void isClosedWhileItWrites(String path) throws Exception {
    TextModel model = TextModel.open(path, BUDGET, 256);
    CountDownLatch begun = new CountDownLatch(1);
    Throwable[] end = {null};
    Thread writer =
        new Thread(
            () -> {
              try {
                while (true) {
                  model.generate(
                      PROMPT,
                      0,
                      text -> {
                        begun.countDown();
                        return true;
                      });
                  model.clear();
                }
              } catch (Throwable thrown) {
                end[0] = thrown;
              }
            });
    writer.start();
    begun.await();
    model.close();
    writer.join();
    check(
        end[0] instanceof CancellationException || end[0] instanceof IllegalStateException,
        "ended by " + end[0]);
  }

  private static void refusesCallsOfAListener(String path) throws Exception {
    try (TextModel model = TextModel.open(path, BUDGET, 256)) {
      Body[] calls = {model::close, model::clear, () -> model.generate("", 1, text -> true)};
      for (Body call : calls) {
        model.generate(
            PROMPT,
            1,
            text -> {
              expect(IllegalStateException.class, call);
              return true;
            });
      }
    }
  }

  private static void refusesCallsOnceItIsClosed(String path) throws Exception {
    TextModel model = TextModel.open(path, BUDGET, 256);
    model.close();
    model.close();
    model.cancel();
    expect(IllegalStateException.class, model::clear);
    expect(IllegalStateException.class, () -> model.generate(PROMPT, 1, text -> true));
  }

  private static void takesAnyText(String path) throws Exception {
    try (TextModel model = TextModel.open(path, BUDGET, 256)) {
      // Beyond the 16-bit plane, half a pair, and a 0: JNI's own UTF-8 differs.
      model.generate("\ud83d\ude00 \ud83d \u0000 \u00e9", 5, text -> true);
      model.generate("", 5, text -> true);
    }
  }

  private static void givesEverythingBack(String path) throws Exception {
    long bytesBefore = residentBytes();
    int filesBefore = count("/proc/self/fd");
    int threadsBefore = count("/proc/self/task");
    for (int i = 0; i < 50; ++i) {
      try (TextModel model = TextModel.open(path, BUDGET, 256)) {
        model.generate(PROMPT, 1, text -> true);
      }
    }
    // All 50 have 200 MiB; Java's own memory comes and goes, too.
    check(residentBytes() < bytesBefore + (64 << 20), "memory");
    check(count("/proc/self/fd") < filesBefore + 10, "files");
    check(count("/proc/self/task") < threadsBefore + 10, "threads");
  }

  private static int count(String directory) {
    return new File(directory).list().length;
  }

  private static long residentBytes() throws Exception {
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith("RssAnon:")) {
        return Long.parseLong(line.replaceAll("[^0-9]", "")) << 10;
      }
    }
    throw new AssertionError("no RssAnon");
  }

  private static String story(TextModel model) throws FlashelmException {
    StringBuilder text = new StringBuilder();
    check(model.generate(PROMPT, 40, append(text)) == 40, "40 tokens");
    return text.toString();
  }

  private static TextModel.TextListener append(StringBuilder to) {
    return text -> {
      to.append(text);
      return true;
    };
  }

  private static void await(CountDownLatch latch) {
    try {
      latch.await();
    } catch (InterruptedException interrupted) {
      throw new AssertionError(interrupted);
    }
  }

  private static <T extends Throwable> T expect(Class<T> type, Body body) {
    try {
      body.run();
    } catch (Throwable thrown) {
      check(type.isInstance(thrown), thrown + " in place of " + type.getName());
      return type.cast(thrown);
    }
    throw new AssertionError("nothing was thrown in place of " + type.getName());
  }

  private static void check(boolean holds, String what) {
    if (!holds) {
      throw new AssertionError(what);
    }
  }

  private TextModelTest() {}
}
