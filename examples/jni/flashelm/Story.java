package flashelm;

/**
 * Prints a story as it is written, within so many MiB: {@code java
 * -Djava.library.path=DIR flashelm.Story MODEL.felm MEBIBYTES PROMPT}.
 */
public final class Story {
  public static void main(String[] args) throws FlashelmException {
    if (args.length != 3) {
      System.err.println("usage: Story MODEL.felm MEBIBYTES PROMPT");
      System.exit(2);
    }
    try (TextModel model = TextModel.open(args[0], Long.parseLong(args[1]) << 20, 256)) {
      System.out.print(args[2]);
      long numTokens =
          model.generate(
              args[2],
              40,
              text -> {
                System.out.print(text);
                System.out.flush();
                return true;
              });
      System.out.println();
      System.out.println(numTokens + " tokens");
    }
  }

  private Story() {}
}
